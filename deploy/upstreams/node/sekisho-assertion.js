// Verifies the assertion that Sekisho puts into each request, with jose.
//
//     const verify = verifier(ISSUER, AUDIENCE, publishedKeys(ISSUER + '/_sekisho/jwks.json')); // one per process
//     const claims = await verify(assertionOf(request)); // or Rejected: answer 401
//
// To try it out:
//
//     npm install
//     node sekisho-assertion.js conformance ../conformance/assertion.json
//     node sekisho-assertion.js serve ISSUER AUDIENCE JWKS_URL

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { argv } from 'node:process';
import { pathToFileURL } from 'node:url';
import { createLocalJWKSet, createRemoteJWKSet, errors, jwtVerify } from 'jose';

const FIELD = 'sekisho-jwt-assertion';
const TYPE = 'sekisho-assertion+jwt';
const LONGEST = 4096; // bytes of a token
// The last character: of its six bits four must be zero, which jose does not mind.
const SHAPE = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]{85}[AQgw]$/;
const CLAIMS = {
  iss: 'string', aud: 'string', sub: 'string', iat: 'integer', nbf: 'integer', exp: 'integer', jti: 'string',
  sid: 'string', auth_time: 'integer', acr: 'string', amr: 'list',
};
const KINDS = {
  string: (value) => typeof value === 'string',
  integer: Number.isSafeInteger,
  list: Array.isArray,
};

/** Not to be believed. Say no more than "401" to the client. */
export class Rejected extends Error {}

/**
 * The gateway's public keys, fetched again after `maxAge` or on an unknown kid, at most every `cooldown` seconds.
 * jose does not read the answer's own max-age; 300 s is what the gateway says unless a key was compromised.
 */
export const publishedKeys = (url, cooldown = 30, maxAge = 300) =>
  createRemoteJWKSet(new URL(url), {
    cacheMaxAge: maxAge * 1000, cooldownDuration: cooldown * 1000, timeoutDuration: 5000,
  });

/** A function from a header's value to the claims of a genuine assertion for this upstream. */
export const verifier = (issuer, audience, keys, now = () => new Date()) => async (token) => {
  const shape = typeof token === 'string' && token.length <= LONGEST && SHAPE.exec(token);
  if (!shape) throw new Rejected('not a compact JWS');
  // The exact header: jose lets one without kid pass if the JWKS has a single key, and typ in another spelling.
  const { alg, typ, kid, ...rest } = parse(shape[1]);
  if (alg !== 'ES256' || typ !== TYPE || typeof kid !== 'string' || Object.keys(rest).length > 0)
    throw new Rejected('not the header of an assertion');
  const claims = parse(shape[2]);
  if (Object.entries(CLAIMS).some(([name, kind]) => !KINDS[kind](claims[name])))
    throw new Rejected('a claim is missing or of another type'); // jose takes a list for aud, and a fraction for exp
  if (!claims.sub || !claims.jti || !claims.sid) throw new Rejected('an empty claim');
  if (claims.exp - claims.iat > 300) throw new Rejected('it lives too long');
  try {
    return (await jwtVerify(token, keys, {
      issuer, audience, algorithms: ['ES256'], typ: TYPE, clockTolerance: 30, maxTokenAge: '5m', currentDate: now(),
    })).payload;
  } catch (problem) {
    if (!(problem instanceof errors.JOSEError)) console.error(`cannot verify: ${problem.message}`);
    throw new Rejected('not genuine, or not for now');
  }
};

/** The one assertion of a request: Node joins headers of one name with commas, which no verifier should see. */
export const assertionOf = (request) => {
  const values = request.headersDistinct[FIELD] ?? [];
  return values.length === 1 ? values[0] : undefined;
};

/** The JSON object of one segment. The gateway writes compact JSON: what differs if written again had a member twice. */
const parse = (segment) => {
  const text = Buffer.from(segment, 'base64url').toString();
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Rejected('not JSON');
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Rejected('not a JSON object');
  if (JSON.stringify(value) !== text) throw new Rejected('not as the gateway writes it');
  return value;
};

// --- Trying it out --------------------------------------------------------------------------------------------------

const conformance = async (path) => {
  const { issuer, audience, now, jwks, cases } = JSON.parse(readFileSync(path, 'utf8'));
  const verify = verifier(issuer, audience, createLocalJWKSet(jwks), () => new Date(now * 1000));
  for (const { name, token } of cases) {
    const accepted = await verify(token).then(() => true, (problem) => {
      if (!(problem instanceof Rejected)) throw problem;
      return false;
    });
    console.log(`${accepted ? 'accepted' : 'rejected'} ${name}`);
  }
};

const serve = (issuer, audience, jwksUrl) => {
  const verify = verifier(issuer, audience, publishedKeys(jwksUrl));
  const server = createServer(async (request, response) => {
    const claims = await verify(assertionOf(request)).catch(() => null);
    response.writeHead(claims ? 200 : 401, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(claims ?? { error: 'unauthorized' }));
  });
  server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
};

if (import.meta.url === pathToFileURL(argv[1]).href) {
  const [, , mode, ...rest] = argv;
  await { conformance, serve }[mode](...rest);
}
