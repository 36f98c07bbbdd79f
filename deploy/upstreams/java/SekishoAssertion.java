import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.sun.net.httpserver.HttpServer;
import io.jsonwebtoken.JwtParser;
import io.jsonwebtoken.JwtParserBuilder;
import io.jsonwebtoken.Jwts;
import io.jsonwebtoken.jackson.io.JacksonDeserializer;
import io.jsonwebtoken.security.EcPublicJwk;
import io.jsonwebtoken.security.Jwks;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.PublicKey;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.Base64;
import java.util.Date;
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
 * Verifies the assertion that Sekisho puts into each request, with JJWT.
 *
 * <pre>
 * var keys = new PublishedKeys(ISSUER + "/_sekisho/jwks.json");
 * var verifier = new SekishoAssertion(ISSUER, AUDIENCE, keys, Clock.systemUTC());  // one for all threads
 * JsonNode claims = verifier.verify(request.getHeader("Sekisho-Jwt-Assertion"));   // or Rejected: answer 401
 * </pre>
 *
 * To try it out, with the jars of jjwt-api, jjwt-impl and jjwt-jackson (io.jsonwebtoken, 0.12.6) and of Jackson, on which
 * they stand, in one folder:
 *
 * <pre>
 * export CLASSPATH='jars/*'
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

    /** The last character: of its six bits four must be zero, which JJWT does not mind. */
    private static final Pattern SHAPE =
            Pattern.compile("([A-Za-z0-9_-]+)\\.([A-Za-z0-9_-]+)\\.[A-Za-z0-9_-]{85}[AQgw]");

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

    /** Where keys come from: the one of a kid, or null. */
    public interface Keys {
        PublicKey find(String kid);
    }

    private final JwtParser parser;
    private final Clock clock;

    public SekishoAssertion(String issuer, String audience, Keys keys, Clock clock) {
        this.clock = clock;
        JwtParserBuilder builder = Jwts.parser();
        // ES256 alone; JJWT 0.12.6 lets the others be removed one by one, and throws at clear().
        Jwts.SIG.get().values().stream().filter(other -> other != Jwts.SIG.ES256).forEach(builder.sig()::remove);
        parser = builder
                .keyLocator(header -> keys.find((String) header.get("kid")))
                .requireIssuer(issuer)
                .requireAudience(audience)
                .clock(() -> Date.from(clock.instant()))
                .clockSkewSeconds(LEEWAY)
                .json(new JacksonDeserializer<>(JSON))
                .build();
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
        try {
            parser.parseSignedClaims(token);
        } catch (RuntimeException refused) { // JwtException, and whatever hostile tokens make JJWT or the JDK throw
            throw new Rejected("not genuine, or not for now");
        }
        // JJWT looks at exp and nbf if they are there, and takes text for times and a list for aud.
        JsonNode claims = parse(shape.group(2));
        for (var claim : CLAIMS.entrySet()) {
            JsonNode value = claims.get(claim.getKey());
            if (value == null || !claim.getValue().test(value)) {
                throw new Rejected("a claim is missing or of another type");
            }
        }
        long iat = claims.get("iat").asLong();
        // No plain subtraction, which could overflow.
        if (iat > clock.instant().getEpochSecond() + LEEWAY || claims.get("exp").asLong() > iat + LIFE) {
            throw new Rejected("it begins in the future, or lives too long");
        }
        return claims;
    }

    private static boolean isText(JsonNode value, String expected) {
        return value.isTextual() && value.asText().equals(expected);
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
    private static Map<String, PublicKey> byKid(JsonNode document) {
        var found = new HashMap<String, PublicKey>();
        // One by one: while its key is suspended the gateway publishes none, and JJWT's setParser() throws at that.
        for (JsonNode key : document.required("keys")) {
            boolean ours = key.path("kty").asText().equals("EC") && key.path("crv").asText().equals("P-256");
            if (ours && key.has("kid") && Jwks.parser().build().parse(key.toString()) instanceof EcPublicJwk usable) {
                found.put(usable.getId(), usable.toKey());
            }
        }
        return found;
    }

    /** Fetches the gateway's keys after max-age, and on an unknown kid, at most every 30 s. */
    public static final class PublishedKeys implements Keys {
        private static final Duration COOLDOWN = Duration.ofSeconds(30);
        /** How long keys are believed past their max-age while the gateway does not answer. */
        private static final Duration STALE = Duration.ofMinutes(10);
        private static final Pattern MAX_AGE = Pattern.compile("max-age=(\\d{1,9})");

        private final HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
        private final URI url;
        private Map<String, PublicKey> keys = Map.of();
        private long freshUntil = System.nanoTime();
        private Long tried;

        public PublishedKeys(String url) {
            this.url = URI.create(url);
        }

        @Override
        public synchronized PublicKey find(String kid) {
            long now = System.nanoTime();
            boolean mayAsk = tried == null || now - tried >= COOLDOWN.toNanos();
            if (mayAsk && (!keys.containsKey(kid) || now - freshUntil >= 0)) {
                tried = now;
                try {
                    fetch(now);
                } catch (IOException | RuntimeException problem) {
                    System.err.println(url + ": " + problem);
                } catch (InterruptedException ended) {
                    Thread.currentThread().interrupt();
                }
            }
            return now - freshUntil < STALE.toNanos() ? keys.get(kid) : null;
        }

        private void fetch(long now) throws IOException, InterruptedException {
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
            case "serve" -> serve(arguments[1], arguments[2], new PublishedKeys(arguments[3]));
            default -> throw new IllegalArgumentException("conformance FILE, or serve ISSUER AUDIENCE JWKS_URL");
        }
    }

    private static void conformance(Path file) throws IOException {
        JsonNode document = JSON.readTree(Files.readString(file));
        Map<String, PublicKey> published = byKid(document.get("jwks"));
        Clock clock = Clock.fixed(Instant.ofEpochSecond(document.get("now").asLong()), ZoneOffset.UTC);
        var verifier = new SekishoAssertion(
                document.get("issuer").asText(), document.get("audience").asText(), published::get, clock);
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
