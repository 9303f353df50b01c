//! Which access tokens and cookies are accepted.

use atrium_harness::{Atrium, client::Client};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use crate::{
    CheckedSend as _, assert_identical_problems, operations::Operation, until_token_rejected, world::World,
};

/// Encodes a value as a part of a token.
fn part(value: &Value) -> String {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn claims_of(token: &str) -> Value {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn header(kid: &str) -> Header {
    Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) }
}

/// A token with exactly this header and payload, signed with the key. Libraries do not write such malformed tokens.
fn sign_raw(header: &str, payload: &str, key: &EncodingKey) -> String {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let [header, payload] = [header, payload].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{payload}");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}")
}

#[tokio::test]
async fn forged_tokens_get_identical_responses() {
    let atrium = Atrium::start().await;
    let client = atrium.client();
    let guest = atrium.guest().await;
    let token = guest.client.token().unwrap();
    let claims = claims_of(token);
    let now = atrium_shared::clock::now().unix_timestamp();
    let trusted_key =
        EncodingKey::from_ed_pem(&std::fs::read(atrium.wiring().keys.join("test-1.pem")).unwrap()).unwrap();
    let sign = |header: &Header, claims: &Value| jsonwebtoken::encode(header, claims, &trusted_key).unwrap();
    let with = |field: &str, value: Value| {
        let mut claims = claims.clone();
        claims[field] = value;
        sign(&header("test-1"), &claims)
    };
    let without = |field: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(field);
        sign(&header("test-1"), &claims)
    };
    let payload = claims.to_string();
    let valid_header = r#"{"alg":"EdDSA","kid":"test-1"}"#;
    // Control: the forging helpers produce tokens that are accepted when everything is right.
    for token in [
        sign(&header("test-1"), &claims),
        sign_raw(valid_header, &payload, &trusted_key),
        with("nbf", json!(now)),
    ] {
        client.bearer(token).get("/v1/auth/me").answers(200).await;
    }

    let jwks = client.get("/.well-known/jwks.json").answers(200).await.json();
    let public = jwks["keys"][0]["x"].as_str().unwrap().to_owned();
    let jwk = jwks["keys"][0].to_string();
    let secret = EncodingKey::from_secret(public.as_bytes());
    let hs256 = Header { kid: Some("test-1".to_owned()), ..Header::new(Algorithm::HS256) };
    let untrusted = untrusted_key(&atrium);
    let mut truncated = token.to_owned();
    truncated.pop();
    let [signed_header, signed_payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    let mut forged: Vec<(String, String)> = vec![
        ("HS256 with the public key".to_owned(), jsonwebtoken::encode(&hs256, &claims, &secret).unwrap()),
        ("another key".to_owned(), jsonwebtoken::encode(&header("test-1"), &claims, &untrusted).unwrap()),
        ("no kid".to_owned(), sign(&Header::new(Algorithm::EdDSA), &claims)),
        ("nothing".to_owned(), String::new()),
        ("no token".to_owned(), "a.b.c".to_owned()),
        ("three times nothing".to_owned(), "..".to_owned()),
        ("cut off".to_owned(), truncated),
        ("a byte more".to_owned(), format!("{token}A")),
        ("a part more".to_owned(), format!("{token}.{signature}")),
        ("a part less".to_owned(), format!("{signed_header}.{signed_payload}")),
        ("no signature".to_owned(), format!("{signed_header}.{signed_payload}.")),
        ("the signature of nothing".to_owned(), format!("{signed_header}.{}.{signature}", part(&json!({})))),
        ("long".to_owned(), "x".repeat(2049)),
        ("huge".to_owned(), format!("{token}{}", "A".repeat(8_000))),
        ("a huge claim".to_owned(), with("name", json!("x".repeat(2048)))),
        (
            "deep".to_owned(),
            sign_raw(valid_header, &format!("{}{}", "[".repeat(700), "]".repeat(700)), &trusted_key),
        ),
    ];
    for none in ["none", "None", "nOnE", "NONE", ""] {
        let header = part(&json!({"alg": none, "kid": "test-1"}));
        forged.push((format!("alg {none}"), format!("{header}.{}.", part(&claims))));
        forged.push((format!("alg {none}, signed"), format!("{header}.{signed_payload}.{signature}")));
    }
    for algorithm in ["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA448", "eddsa"] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"test-1"}}"#);
        forged.push((format!("alg {algorithm}"), sign_raw(&header, &payload, &trusted_key)));
    }
    for kid in
        ["unknown", "", "../test-1", "/etc/passwd", "test-1.pem", "./test-1", "test-1\0", "TEST-1", "test-2"]
    {
        forged.push((format!("kid {kid:?}"), sign(&header(kid), &claims)));
    }
    for (name, field) in [
        ("jku", r#""jku":"https://evil.example/jwks.json""#.to_owned()),
        ("jwk", format!(r#""jwk":{jwk}"#)),
        ("x5u", r#""x5u":"https://evil.example/chain.pem""#.to_owned()),
        ("x5c", r#""x5c":["AAAA"]"#.to_owned()),
        ("crit", r#""crit":["exp"]"#.to_owned()),
        ("kid twice", r#""kid":"test-1""#.to_owned()),
        ("alg twice", r#""alg":"EdDSA""#.to_owned()),
        ("kid a number", String::new()),
    ] {
        let header = match field.as_str() {
            "" => r#"{"alg":"EdDSA","kid":1}"#.to_owned(),
            field => format!(r#"{{"alg":"EdDSA","kid":"test-1",{field}}}"#),
        };
        forged.push((name.to_owned(), sign_raw(&header, &payload, &trusted_key)));
    }
    for (field, wrong) in [
        ("aud", json!("somebody-else")),
        ("aud", json!(["somebody-else"])),
        ("aud", json!("")),
        ("iss", json!("https://evil.example")),
        ("iss", json!(format!("{}/", atrium.public_url()))),
        ("exp", json!(now - 6)),
        ("exp", json!("tomorrow")),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("nbf", json!(now + 3600)),
        ("nbf", json!("tomorrow")),
        ("sub", json!("root")),
        ("sub", json!(1)),
        ("jti", json!("not-a-uuid")),
        ("sid", json!("not-a-uuid")),
        ("iat", json!("yesterday")),
    ] {
        forged.push((format!("{field}: {wrong}"), with(field, wrong)));
    }
    for field in ["iss", "aud", "sub", "jti", "sid", "exp", "iat"] {
        forged.push((format!("no {field}"), without(field)));
        forged.push((format!("{field}: null"), with(field, Value::Null)));
        // A duplicate field: parsers differ in which of the two they take.
        let (claim, body) = (&claims[field], payload.strip_suffix('}').unwrap());
        forged.push((
            format!("{field} twice"),
            sign_raw(valid_header, &format!(r#"{body},"{field}":{claim}}}"#), &trusted_key),
        ));
    }

    let mut replies = Vec::new();
    for (about, token) in &forged {
        let reply = client.bearer(token).get("/v1/auth/me").send().await.unwrap();
        assert_eq!((reply.code(), reply.problem().as_str()), (401, "unauthenticated"), "{about}");
        assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"), "{about}");
        replies.push(reply);
    }
    // A valid token is rejected unless it is the only bearer token of the request.
    let carried =
        [vec![format!("Bearer {token}"); 2], vec![format!("Basic {token}")], vec![token.to_owned()]];
    for values in carried {
        let request = values
            .iter()
            .fold(client.get("/v1/auth/me"), |request, value| request.header("authorization", value));
        replies.push(request.send().await.unwrap());
    }
    replies.push(client.get("/v1/auth/me").send().await.unwrap());
    assert_identical_problems(&replies, 401, "unauthenticated");
}

/// A signing key that Atrium does not trust, with the same key id.
fn untrusted_key(atrium: &Atrium) -> EncodingKey {
    let folder = atrium.wiring().logs.join("foreign-keys");
    std::fs::create_dir_all(&folder).unwrap();
    let file = atrium_harness::keys::generate(&folder, "test-1").unwrap();
    EncodingKey::from_ed_pem(&std::fs::read(file).unwrap()).unwrap()
}

#[tokio::test]
async fn services_can_verify_tokens_with_the_published_keys() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let jwks = atrium.client().get("/.well-known/jwks.json").answers(200).await;
    let jwks: JwkSet = serde_json::from_slice(&jwks.body).unwrap();
    let token = guest.client.token().unwrap();
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(jwks.find(&kid).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["atrium"]);
    validation.set_issuer(&[atrium.public_url()]);
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap().claims;
    assert_eq!(claims["sub"], guest.id.as_str());
}

#[tokio::test]
async fn a_logout_revokes_the_token_in_every_process() {
    let atrium = Atrium::builder().apis(2).start().await;
    let browser = atrium.client().with_cookies();
    let signed_in = browser.post("/v1/auth/guest").answers(201).await;
    assert!(signed_in.at("/user/name").starts_with("guest-"));
    let token = signed_in.at("/access_token");
    let other = atrium.client_of(1).bearer(&token);
    browser.get("/v1/auth/me").answers(200).await;
    other.get("/v1/auth/me").answers(200).await;

    browser.post("/v1/auth/logout").header("origin", atrium.public_url()).answers(204).await;
    // The browser no longer has a cookie, and a copy of the token is rejected.
    browser.get("/v1/auth/me").refused(401, "unauthenticated").await;
    atrium.client().bearer(&token).get("/v1/auth/me").refused(401, "unauthenticated").await;
    until_token_rejected(&other).await;
    // A repeated logout is a client error.
    other.post("/v1/auth/logout").refused(401, "unauthenticated").await;
}

#[tokio::test]
async fn cookies_are_accepted_from_own_pages_only() {
    let atrium = Atrium::start().await;
    let browser = atrium.client().with_cookies();
    browser.post("/v1/auth/guest").header("sec-fetch-site", "same-origin").answers(201).await;
    let create = || browser.post("/v1/orgs").json(json!({ "name": "a" }));
    create().refused(403, "cross_site_request").await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:8081", "https://127.0.0.1:8080"] {
        create().header("origin", origin).refused(403, "cross_site_request").await;
        browser.get("/v1/orgs").header("origin", origin).unchecked().refused(403, "cross_site_request").await;
    }
    for site in ["cross-site", "same-site"] {
        create().header("sec-fetch-site", site).refused(403, "cross_site_request").await;
    }
    let simple = browser.post("/v1/orgs").body("text/plain", "{\"name\":\"a\"}");
    simple.header("origin", "https://evil.example").refused(403, "cross_site_request").await;
    // Another site cannot sign a browser in.
    let cross_site_sign_in = atrium.client().post("/v1/auth/guest").header("origin", "https://evil.example");
    cross_site_sign_in.refused(403, "cross_site_request").await;

    create().header("origin", atrium.public_url()).answers(202).await;
    create().header("sec-fetch-site", "same-origin").answers(202).await;
    browser.get("/v1/orgs").answers(200).await;
    // A token in the header is accepted from any origin, because browsers do not add it by themselves.
    let guest = atrium.guest().await;
    let script = guest.client.post("/v1/orgs").json(json!({ "name": "a" }));
    script.header("origin", "https://evil.example").answers(202).await;
}

/// Sends every operation that accepts a cookie as another site's page would.
#[tokio::test]
async fn no_operation_accepts_a_cookie_from_another_site() {
    let atrium = Atrium::start().await;
    let mut requests = 0;
    for operation in Operation::all().iter().filter(|operation| !operation.public) {
        let world = World::create(&atrium, &[]).await;
        let token = world.people["owner"].client.token().unwrap();
        let cookie = format!("atrium_session={token}; atrium_refresh=AAAA");
        let client = atrium.client();
        let forge = || {
            operation.request(&client, |name| world.own(operation, "owner", name)).header("cookie", &cookie)
        };
        let mut forged = vec![
            forge().header("origin", "https://evil.example"),
            forge().header("origin", "null"),
            forge().header("origin", "https://evil.example").header("sec-fetch-site", "same-origin"),
            forge().header("sec-fetch-site", "cross-site"),
            forge().header("sec-fetch-site", "same-site"),
        ];
        if operation.writes() {
            // Old browsers send no origin, and a form sends a request that needs no preflight.
            forged.push(forge());
            forged.push(forge().body("text/plain", "{}").header("origin", "https://evil.example"));
        }
        for request in forged {
            requests += 1;
            let reply = operation.send(request).await.expect("no stream opens for another site");
            let _ = reply.must_be(403, "cross_site_request");
        }
    }
    assert!(requests > 200, "{requests}");
}

#[tokio::test]
async fn over_tls_the_cookie_is_bound_to_the_host() {
    let atrium = Atrium::builder().public_url("https://atrium.example").start().await;
    let reply = atrium.client().post("/v1/auth/guest").answers(201).await;
    let cookies: Vec<_> =
        reply.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap()).collect();
    let [session, refresh] = cookies[..] else { panic!("two cookies, not {cookies:?}") };
    assert!(session.starts_with("__Host-atrium_session=") && session.ends_with("; Secure"), "{session}");
    assert!(refresh.starts_with("__Secure-atrium_refresh=") && refresh.ends_with("; Secure"), "{refresh}");
    assert!(reply.header("strict-transport-security").unwrap().starts_with("max-age="));
}

#[tokio::test]
async fn guest_numbers_continue_after_9999() {
    let atrium = Atrium::start().await;
    let mut superuser = atrium.superuser().await;
    for (number, name) in
        [(1, "guest-0001"), (1_000, "guest-1000"), (9_999, "guest-9999"), (10_000, "guest-10000")]
    {
        sqlx::query("SELECT setval('guest_number', $1, false)")
            .bind(i64::from(number))
            .execute(&mut superuser)
            .await
            .unwrap();
        assert_eq!(atrium.guest().await.name, name);
    }
}

#[tokio::test]
async fn a_revocation_takes_effect_with_the_database_clock_behind() {
    let mut atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let claims = claims_of(guest.client.token().unwrap());
    let mut database = atrium.superuser().await;
    // For the watcher's role, `now()` is five minutes behind.
    for statement in [
        "CREATE SCHEMA behind",
        "GRANT USAGE ON SCHEMA behind TO atrium_watcher",
        "CREATE FUNCTION behind.now() RETURNS timestamptz LANGUAGE sql AS
             $$ SELECT pg_catalog.now() - interval '5 minutes' $$",
        "DO $$ BEGIN EXECUTE format(
             'ALTER ROLE atrium_watcher IN DATABASE %I SET search_path = behind, pg_catalog, public',
             current_database()); END $$",
    ] {
        sqlx::raw_sql(statement).execute(&mut database).await.unwrap();
    }
    let api = atrium.add_api().await.url();
    let elsewhere = Client::new(api).bearer(guest.client.token().unwrap());
    elsewhere.get("/v1/auth/me").answers(200).await;
    sqlx::query(
        "INSERT INTO revoked_auth_sessions (auth_session_id, user_id, expires_at, revoked_at)
         VALUES ($1::uuid, $2::uuid, to_timestamp($3), clock_timestamp() - interval '5 minutes')",
    )
    .bind(claims["sid"].as_str())
    .bind(claims["sub"].as_str())
    .bind(claims["exp"].as_f64())
    .execute(&mut database)
    .await
    .unwrap();
    until_token_rejected(&elsewhere).await;
}
