import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.math.BigInteger;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.ECParameterSpec;
import java.security.spec.ECPoint;
import java.security.spec.ECPublicKeySpec;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Executors;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Verifies the assertion that Sekisho puts into each request, with the JDK's own ECDSA and Jackson.
 *
 * <pre>
 * var keys = new PublishedKeys(ISSUER + "/_sekisho/jwks.json", 30);
 * var verifier = new SekishoAssertion(ISSUER, AUDIENCE, keys, Clock.systemUTC());  // one for all threads
 * JsonNode claims = verifier.verify(request.getHeader("Sekisho-Jwt-Assertion"));   // or Rejected: answer 401
 * </pre>
 *
 * To try it out, with Debian's libjackson2-databind-java, or the jars of jackson-databind, -core and -annotations:
 *
 * <pre>
 * cd /usr/share/java; export CLASSPATH=$PWD/jackson-databind.jar:$PWD/jackson-core.jar:$PWD/jackson-annotations.jar; cd -
 * java SekishoAssertion.java conformance ../conformance/assertion.json
 * java SekishoAssertion.java serve ISSUER AUDIENCE JWKS_URL
 * </pre>
 */
public final class SekishoAssertion {
    private static final String FIELD = "Sekisho-Jwt-Assertion";
    private static final String TYPE = "sekisho-assertion+jwt";
    /** Characters of a token. */
    private static final int LONGEST = 4096;
    /** Seconds from iat to exp, at most. */
    private static final long LIFE = 300;
    /** Seconds that the clocks of gateway and upstream may be apart. */
    private static final long LEEWAY = 30;

    /** The last character: of its six bits four must be zero, which Base64.getUrlDecoder does not mind. */
    private static final Pattern SHAPE =
            Pattern.compile("([A-Za-z0-9_-]+)\\.([A-Za-z0-9_-]+)\\.([A-Za-z0-9_-]{85}[AQgw])");

    /** Unless told not to, Jackson takes the last of two members of one name, and stops after the first value. */
    private static final ObjectMapper JSON = JsonMapper.builder()
            .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION)
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .build();

    private static final Predicate<JsonNode> TEXT = value -> value.isTextual() && !value.asText().isEmpty();
    private static final Predicate<JsonNode> WHOLE = value -> value.isIntegralNumber() && value.canConvertToLong();
    private static final Map<String, Predicate<JsonNode>> CLAIMS = Map.ofEntries(
            Map.entry("iss", TEXT), Map.entry("aud", TEXT), Map.entry("sub", TEXT), Map.entry("iat", WHOLE),
            Map.entry("nbf", WHOLE), Map.entry("exp", WHOLE), Map.entry("jti", TEXT), Map.entry("sid", TEXT),
            Map.entry("auth_time", WHOLE), Map.entry("acr", TEXT), Map.entry("amr", JsonNode::isArray));

    /** Not to be believed. Say no more than "401" to the client. */
    public static final class Rejected extends Exception {
        Rejected(String why) {
            super(why);
        }
    }

    /** Where keys come from. */
    public interface Keys {
        PublicKey find(String kid) throws Rejected;
    }

    private final String issuer;
    private final String audience;
    private final Keys keys;
    private final Clock clock;

    public SekishoAssertion(String issuer, String audience, Keys keys, Clock clock) {
        this.issuer = issuer;
        this.audience = audience;
        this.keys = keys;
        this.clock = clock;
    }

    /** The claims of a genuine assertion for this upstream. */
    public JsonNode verify(String token) throws Rejected {
        Matcher shape = SHAPE.matcher(token == null || token.length() > LONGEST ? "" : token);
        if (!shape.matches()) {
            throw new Rejected("not a compact JWS");
        }
        JsonNode header = parse(shape.group(1));
        var members = new TreeSet<String>();
        header.fieldNames().forEachRemaining(members::add);
        // The exact header: no jwk, jku, x5u, x5c or crit could matter.
        if (!members.equals(Set.of("alg", "kid", "typ")) || !isText(header.get("alg"), "ES256")
                || !isText(header.get("typ"), TYPE) || !header.get("kid").isTextual()) {
            throw new Rejected("not the header of an assertion");
        }
        if (!isSigned(shape, keys.find(header.get("kid").asText()))) {
            throw new Rejected("not signed by that key");
        }
        JsonNode claims = parse(shape.group(2));
        for (var claim : CLAIMS.entrySet()) {
            JsonNode value = claims.get(claim.getKey());
            if (value == null || !claim.getValue().test(value)) {
                throw new Rejected("a claim is missing or of another type");
            }
        }
        if (!isText(claims.get("iss"), issuer) || !isText(claims.get("aud"), audience)) {
            throw new Rejected("another gateway's or upstream's");
        }
        long now = clock.instant().getEpochSecond();
        long iat = claims.get("iat").asLong();
        long exp = claims.get("exp").asLong();
        if (exp <= now - LEEWAY || iat > now + LEEWAY || claims.get("nbf").asLong() > now + LEEWAY) {
            throw new Rejected("not for now");
        }
        // exp and iat may be anything: no plain subtraction, which could overflow.
        if (iat < now - LIFE - LEEWAY || exp > iat + LIFE) {
            throw new Rejected("it lives too long");
        }
        return claims;
    }

    private static boolean isText(JsonNode value, String expected) {
        return value.isTextual() && value.asText().equals(expected);
    }

    private static boolean isSigned(Matcher shape, PublicKey key) {
        try {
            // r and s of 32 octets each (RFC 7518 section 3.4); plain SHA256withECDSA would want DER.
            Signature signature = Signature.getInstance("SHA256withECDSAinP1363Format");
            signature.initVerify(key);
            signature.update((shape.group(1) + "." + shape.group(2)).getBytes(StandardCharsets.US_ASCII));
            return signature.verify(Base64.getUrlDecoder().decode(shape.group(3)));
        } catch (GeneralSecurityException refused) {
            return false; // r or s is zero, or too large
        }
    }

    private static JsonNode parse(String segment) throws Rejected {
        try {
            JsonNode value = JSON.readTree(Base64.getUrlDecoder().decode(segment));
            if (value.isObject()) {
                return value;
            }
        } catch (IOException | IllegalArgumentException notJson) {
            // refused below
        }
        throw new Rejected("not a JSON object");
    }

    /** The usable keys of a JWKS document; those of other kinds are left out (RFC 7517 section 5). */
    static Map<String, PublicKey> byKid(JsonNode document) throws GeneralSecurityException {
        AlgorithmParameters parameters = AlgorithmParameters.getInstance("EC");
        parameters.init(new ECGenParameterSpec("secp256r1"));
        ECParameterSpec p256 = parameters.getParameterSpec(ECParameterSpec.class);
        var found = new HashMap<String, PublicKey>();
        for (JsonNode key : document.path("keys")) {
            if (key.path("kty").asText().equals("EC") && key.path("crv").asText().equals("P-256") && key.has("kid")) {
                var point = new ECPoint(coordinate(key, "x"), coordinate(key, "y"));
                PublicKey made = KeyFactory.getInstance("EC").generatePublic(new ECPublicKeySpec(point, p256));
                found.put(key.get("kid").asText(), made);
            }
        }
        return found;
    }

    private static BigInteger coordinate(JsonNode key, String name) {
        return new BigInteger(1, Base64.getUrlDecoder().decode(key.path(name).asText()));
    }

    /** Fetches the gateway's keys after max-age, and on an unknown kid, at most every so many seconds. */
    public static final class PublishedKeys implements Keys {
        /** How long keys are believed past their max-age while the gateway does not answer. */
        private static final Duration STALE = Duration.ofMinutes(10);
        private static final Pattern MAX_AGE = Pattern.compile("max-age=(\\d{1,9})");

        private final HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
        private final URI url;
        private final long cooldown;
        private Map<String, PublicKey> keys = Map.of();
        private long freshUntil = System.nanoTime();
        private Long tried;

        public PublishedKeys(String url, double cooldownSeconds) {
            this.url = URI.create(url);
            this.cooldown = (long) (cooldownSeconds * 1e9);
        }

        @Override
        public synchronized PublicKey find(String kid) throws Rejected {
            long now = System.nanoTime();
            boolean mayAsk = tried == null || now - tried >= cooldown;
            if (mayAsk && (!keys.containsKey(kid) || now - freshUntil >= 0)) {
                tried = now;
                try {
                    fetch(now);
                } catch (IOException | GeneralSecurityException | IllegalArgumentException problem) {
                    System.err.println(url + ": " + problem);
                } catch (InterruptedException ended) {
                    Thread.currentThread().interrupt();
                }
            }
            if (now - freshUntil >= STALE.toNanos() || !keys.containsKey(kid)) {
                throw new Rejected("no such key");
            }
            return keys.get(kid);
        }

        private void fetch(long now) throws IOException, InterruptedException, GeneralSecurityException {
            HttpRequest request = HttpRequest.newBuilder(url).timeout(Duration.ofSeconds(5)).build();
            HttpResponse<byte[]> answer = client.send(request, HttpResponse.BodyHandlers.ofByteArray());
            if (answer.statusCode() != 200) {
                throw new IOException("status " + answer.statusCode());
            }
            keys = byKid(JSON.readTree(answer.body()));
            Matcher maxAge = MAX_AGE.matcher(answer.headers().firstValue("Cache-Control").orElse("max-age=300"));
            long seconds = maxAge.find() ? Math.min(Long.parseLong(maxAge.group(1)), 3600) : 300;
            freshUntil = now + Duration.ofSeconds(seconds).toNanos();
        }
    }

    // --- Trying it out -----------------------------------------------------------------------------------------------

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "conformance" -> conformance(Path.of(arguments[1]));
            case "serve" -> serve(arguments[1], arguments[2],
                    new PublishedKeys(arguments[3], arguments.length > 4 ? Double.parseDouble(arguments[4]) : 30));
            default -> throw new IllegalArgumentException("conformance FILE, or serve ISSUER AUDIENCE JWKS_URL");
        }
    }

    private static void conformance(Path file) throws IOException, GeneralSecurityException {
        JsonNode document = JSON.readTree(Files.readString(file));
        Map<String, PublicKey> published = byKid(document.get("jwks"));
        Keys keys = kid -> {
            if (!published.containsKey(kid)) {
                throw new Rejected("no such key");
            }
            return published.get(kid);
        };
        Clock clock = Clock.fixed(Instant.ofEpochSecond(document.get("now").asLong()), ZoneOffset.UTC);
        var verifier =
                new SekishoAssertion(document.get("issuer").asText(), document.get("audience").asText(), keys, clock);
        for (JsonNode test : document.get("cases")) {
            String said;
            try {
                verifier.verify(test.get("token").asText());
                said = "accepted ";
            } catch (Rejected rejected) {
                said = "rejected ";
            }
            System.out.println(said + test.get("name").asText());
        }
    }

    private static void serve(String issuer, String audience, Keys keys) throws IOException {
        var verifier = new SekishoAssertion(issuer, audience, keys, Clock.systemUTC());
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            List<String> tokens = exchange.getRequestHeaders().getOrDefault(FIELD, List.of());
            int status = 401;
            byte[] body = "{\"error\":\"unauthorized\"}".getBytes(StandardCharsets.UTF_8);
            if (tokens.size() == 1) {
                try {
                    body = JSON.writeValueAsBytes(verifier.verify(tokens.get(0)));
                    status = 200;
                } catch (Rejected rejected) {
                    // 401, without saying why
                }
            }
            exchange.getResponseHeaders().add("Content-Type", "application/json");
            exchange.sendResponseHeaders(status, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort());
    }
}
