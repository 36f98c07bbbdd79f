// Verifies the assertion that Sekisho puts into each request, in nginx itself (njs), for upstreams that cannot.
// nginx.conf beside it calls `verify` for every request by auth_request: 204, with who it is as headers, or 401.

const FIELD = 'Sekisho-Jwt-Assertion';
const TYPE = 'sekisho-assertion+jwt';
const LONGEST = 4096; // bytes of a token
const LIFE = 300; // seconds from iat to exp, at most
const LEEWAY = 30; // seconds that the clocks of gateway and upstream may be apart
// The last character: of its six bits four must be zero. njs skips what is not base64url.
const SHAPE = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{85}[AQgw])$/;
const CLAIMS = {
    iss: 'text', aud: 'text', sub: 'plain', iat: 'whole', nbf: 'whole', exp: 'whole', jti: 'text', sid: 'text',
    auth_time: 'whole', acr: 'plain', amr: 'list'
};
const KINDS = {
    text: (value) => typeof value === 'string' && value !== '',
    plain: (value) => typeof value === 'string' && /^[!-~]+$/.test(value), // may stand in a header
    whole: (value) => typeof value === 'number' && Math.floor(value) === value && Math.abs(value) < 1e15,
    list: Array.isArray
};
// A SubjectPublicKeyInfo for P-256 up to the coordinates: njs before 0.7.10 reads no JWK.
const P256 = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex');

async function verify(r) {
    try {
        const claims = await judge(r);
        r.headersOut['Sekisho-Subject'] = claims.sub;
        r.headersOut['Sekisho-Acr'] = claims.acr;
        r.return(204);
    } catch (problem) {
        r.warn(`assertion refused: ${problem.message}`); // says why, never repeats the token
        r.return(401);
    }
}

async function judge(r) {
    // Every line of that name: nginx's variable would hold one, or all of them joined.
    const tokens = r.rawHeadersIn.filter((line) => line[0].toLowerCase() === FIELD.toLowerCase());
    const shape = tokens.length === 1 && tokens[0][1].length <= LONGEST && SHAPE.exec(tokens[0][1]);
    if (!shape) throw new Error('not one compact JWS');
    const header = parse(shape[1]);
    // The exact header: no jwk, jku, x5u, x5c or crit could matter.
    if (Object.keys(header).sort().join() !== 'alg,kid,typ' || header.alg !== 'ES256' || header.typ !== TYPE
        || typeof header.kid !== 'string')
        throw new Error('not the header of an assertion');
    const jwk = await published(r, header.kid);
    const spki = Buffer.concat([P256, Buffer.from(jwk.x, 'base64url'), Buffer.from(jwk.y, 'base64url')]);
    const key = await crypto.subtle.importKey('spki', spki, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['verify']);
    const signature = Buffer.from(shape[3], 'base64url');
    const algorithm = { name: 'ECDSA', hash: 'SHA-256' };
    const signed = await crypto.subtle.verify(algorithm, key, signature, `${shape[1]}.${shape[2]}`);
    if (!signed) throw new Error('not signed by that key');

    const claims = parse(shape[2]);
    if (Object.keys(CLAIMS).some((name) => !KINDS[CLAIMS[name]](claims[name])))
        throw new Error('a claim is missing or of another type');
    if (claims.iss !== r.variables.sekisho_issuer) throw new Error('another gateway\'s');
    if (claims.aud !== r.variables.sekisho_audience) throw new Error('another upstream\'s');
    const now = Date.now() / 1000;
    if (claims.exp <= now - LEEWAY) throw new Error('it has expired');
    if (claims.nbf > now + LEEWAY || claims.iat > now + LEEWAY) throw new Error('not valid yet');
    if (claims.exp - claims.iat > LIFE) throw new Error('it lives too long');
    return claims;
}

// The key of that kid: from the JWKS that nginx caches for its max-age, else from one that is at most 30 s old.
async function published(r, kid) {
    const places = ['/_sekisho_jwks', '/_sekisho_jwks_recent'];
    for (let i = 0; i < places.length; i++) {
        const answer = await r.subrequest(places[i]);
        const keys = answer.status === 200 ? JSON.parse(answer.responseText).keys : [];
        const key = keys.find((jwk) => jwk.kid === kid && jwk.kty === 'EC' && jwk.crv === 'P-256');
        if (key) return key;
    }
    throw new Error('the JWKS has no key of that kid');
}

// The JSON object of one segment. The gateway writes compact JSON: what is shorter when written again had a member
// twice. Only the lengths can be compared, as njs does not keep the order of members.
function parse(segment) {
    const text = Buffer.from(segment, 'base64url').toString();
    const value = JSON.parse(text);
    if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Error('not a JSON object');
    if (JSON.stringify(value).length !== text.length) throw new Error('not as the gateway writes it');
    return value;
}

export default { verify };
