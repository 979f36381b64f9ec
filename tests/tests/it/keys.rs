//! Keys: which tokens they vouch for, that none is taken for another, and that they can be exchanged
//! while the api runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Header, encode};
use serde_json::{Value, json};
use tests::token::{Algorithm, EncodingKey, claims, now, unsigned};
use tests::{World, scratch_folder, wait_until};

use crate::sessions::ask;
use crate::settings::refusal;
use crate::story::user;

/// The file is looked at every second.
const SEEN: Duration = Duration::from_secs(20);

fn openssl(arguments: &[&str], file: &Path) {
    let made = Command::new("openssl").args(arguments).arg("-out").arg(file).output().unwrap();
    assert!(made.status.success(), "openssl {arguments:?}: {made:?}");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A private key in a file of its own, and as this program reads it.
struct Pair {
    file: PathBuf,
    key: EncodingKey,
    algorithm: Algorithm,
    kid: &'static str,
}

impl Pair {
    fn new(folder: &Path, algorithm: Algorithm, kid: &'static str) -> Self {
        let file = folder.join(format!("{kid}.pem"));
        let kind: &[&str] = match algorithm {
            Algorithm::RS256 => &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            Algorithm::ES256 => &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            _ => &["ED25519"],
        };
        openssl(&[&["genpkey", "-algorithm"], kind].concat(), &file);
        let pem = fs::read(&file).unwrap();
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(&pem),
            Algorithm::ES256 => EncodingKey::from_ec_pem(&pem),
            _ => EncodingKey::from_ed_pem(&pem),
        };
        Self { file, key: key.unwrap(), algorithm, kid }
    }

    fn secret(kid: &'static str) -> Self {
        let key = EncodingKey::from_secret(user().simple().to_string().as_bytes());
        Self { file: PathBuf::new(), key, algorithm: Algorithm::HS256, kid }
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.to_owned());
        json!(jwk)
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(claims, Some(self.kid))
    }

    fn sign_as(&self, claims: &Value, kid: Option<&str>) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }
}

fn of_provider() -> Value {
    let mut claims = claims(user(), "user");
    claims["iss"] = json!(World::PROVIDER_ISSUER);
    claims["aud"] = json!(World::PROVIDER_AUDIENCE);
    claims
}

fn write_set(file: &Path, pairs: &[&Pair]) {
    let keys: Vec<Value> = pairs.iter().map(|pair| pair.jwk()).collect();
    fs::write(file, json!({ "keys": keys }).to_string()).unwrap();
}

async fn is_accepted(world: &World, token: &str) -> bool {
    match world.client_with(token).get("/api/v1/auth/login-never").await.status {
        404 => {}
        other => panic!("an unknown route answers {other}"),
    }
    match world.client_with(token).get("/api/v1/tasks").await.status {
        200 => true,
        401 => false,
        other => panic!("a list answers {other}"),
    }
}

/// Tokens that look right in all but one thing.
fn forgeries(rsa: &Pair, ec: &Pair, folder: &Path) -> Vec<(&'static str, String)> {
    let good = of_provider();
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        rsa.sign(&changed)
    };
    let without = |name: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(name);
        rsa.sign(&changed)
    };
    let (pem, der) = (folder.join("public.pem"), folder.join("public.der"));
    let file = rsa.file.to_str().unwrap();
    openssl(&["pkey", "-in", file, "-pubout"], &pem);
    openssl(&["pkey", "-in", file, "-pubout", "-outform", "DER"], &der);
    let n = rsa.jwk()["n"].as_str().unwrap().to_owned();
    let confused = |secret: &[u8]| {
        let header = Header { kid: Some(rsa.kid.to_owned()), ..Header::new(Algorithm::HS256) };
        encode(&header, &good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let stranger = Pair::new(folder, Algorithm::RS256, "stranger");
    let critical = Header {
        kid: Some(rsa.kid.to_owned()),
        crit: Some(vec!["b64".to_owned()]),
        ..Header::new(Algorithm::RS256)
    };
    vec![
        ("HS256 with the public key's PEM", confused(&fs::read(&pem).unwrap())),
        ("HS256 with the public key's DER", confused(&fs::read(&der).unwrap())),
        ("HS256 with the modulus", confused(n.as_bytes())),
        ("HS256 with the JWK", confused(rsa.jwk().to_string().as_bytes())),
        ("HS256 with nothing", confused(b"")),
        ("no algorithm", unsigned(&good)),
        ("RS256 under the kid of an EC key", rsa.sign_as(&good, Some(ec.kid))),
        ("ES256 under the kid of an RSA key", ec.sign_as(&good, Some(rsa.kid))),
        ("an unknown kid", rsa.sign_as(&good, Some("nobody"))),
        ("a stranger under a known kid", stranger.sign_as(&good, Some(rsa.kid))),
        ("a stranger without a kid", stranger.sign_as(&good, None)),
        ("a critical extension", encode(&critical, &good, &rsa.key).unwrap()),
        ("expired 90 s ago", with("exp", json!(now() - 90))),
        ("valid in 90 s", with("nbf", json!(now() + 90))),
        ("another issuer", with("iss", json!("holdfast"))),
        ("another audience", with("aud", json!("holdfast"))),
        ("no exp", without("exp")),
        ("no iss", without("iss")),
        ("no aud", without("aud")),
        ("no sub", without("sub")),
        ("a sub that is no UUID", with("sub", json!("root"))),
        ("an exp that is a text", with("exp", json!("never"))),
        ("an nbf that is a text", with("nbf", json!("later"))),
        ("a role that is unknown", with("role", json!("root"))),
    ]
}

#[tokio::test]
async fn each_key_vouches_for_its_own_tokens_alone_online_and_in_an_outage() {
    let folder = scratch_folder("keys");
    let (rsa, ec, ed) = (
        Pair::new(folder.path(), Algorithm::RS256, "rsa"),
        Pair::new(folder.path(), Algorithm::ES256, "ec"),
        Pair::new(folder.path(), Algorithm::EdDSA, "ed"),
    );
    let secret = Pair::secret("secret");
    let set = folder.path().join("jwks.json");
    write_set(&set, &[&rsa, &ec, &ed, &secret]);
    let mut world = World::builder()
        .env("PROVIDER_JWT_SECRET", "")
        .env("PROVIDER_JWKS_FILE", set.to_string_lossy())
        .start()
        .await;
    let mut other_session = of_provider();
    other_session["sid"] = json!("a-session-of-the-provider's");
    other_session["exp"] = json!(now() as f64 + 600.5);
    let bad = forgeries(&rsa, &ec, folder.path());
    for outage in [false, true] {
        if outage {
            world.postgres.kill().await;
        }
        for pair in [&rsa, &ec, &ed, &secret] {
            for token in [
                pair.sign(&of_provider()),
                pair.sign_as(&of_provider(), None),
                pair.sign(&other_session),
            ] {
                assert!(is_accepted(&world, &token).await, "{} in {outage}", pair.kid);
                ask(&world, &token).await.expect(200);
            }
        }
        for (what, token) in &bad {
            assert!(!is_accepted(&world, token).await, "{what} in {outage}");
            ask(&world, token).await.expect(401);
        }
    }
}

#[tokio::test]
async fn keys_are_exchanged_while_the_api_runs() {
    let folder = scratch_folder("keys");
    let old = Pair::new(folder.path(), Algorithm::ES256, "old");
    let new = Pair::new(folder.path(), Algorithm::EdDSA, "new");
    let set = folder.path().join("jwks.json");
    write_set(&set, &[&old]);
    let world = World::builder()
        .without_postgres()
        .without_worker()
        .env("PROVIDER_JWT_SECRET", "")
        .env("PROVIDER_JWKS_FILE", set.to_string_lossy())
        .start()
        .await;
    let (with_old, with_new) = (old.sign(&of_provider()), new.sign(&of_provider()));
    assert!(is_accepted(&world, &with_old).await && !is_accepted(&world, &with_new).await);
    write_set(&set, &[&old, &new]);
    wait_until(SEEN, "the new key is known", async || is_accepted(&world, &with_new).await).await;
    assert!(is_accepted(&world, &with_old).await);
    write_set(&set, &[&new]);
    wait_until(SEEN, "the old key is gone", async || !is_accepted(&world, &with_old).await).await;
    assert!(is_accepted(&world, &with_new).await);

    for (number, broken) in ["{", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AA"}]}"#]
        .into_iter()
        .map(Some)
        .chain([None])
        .enumerate()
    {
        match broken {
            Some(text) => fs::write(&set, text).unwrap(),
            None => fs::remove_file(&set).unwrap(),
        }
        wait_until(SEEN, "the file is noticed to be broken", async || {
            world.api.log().matches("the keys stay as they are").count() > number
        })
        .await;
        assert!(is_accepted(&world, &with_new).await, "{broken:?}");
    }
    write_set(&set, &[&old]);
    wait_until(SEEN, "it is read again", async || is_accepted(&world, &with_old).await).await;
    assert!(!is_accepted(&world, &with_new).await);
}

#[tokio::test]
async fn our_own_tokens_are_signed_with_a_private_key_of_each_kind() {
    let folder = scratch_folder("keys");
    for (algorithm, kid) in
        [(Algorithm::RS256, "rsa"), (Algorithm::ES256, "ec"), (Algorithm::EdDSA, "ed")]
    {
        let pair = Pair::new(folder.path(), algorithm, kid);
        let world = World::builder()
            .without_postgres()
            .without_worker()
            .env("JWT_SECRET", "")
            .env("JWT_PRIVATE_KEY_FILE", pair.file.to_string_lossy())
            .start()
            .await;
        let word = world.token(&of_provider(), &world.provider_key(), Algorithm::HS256);
        let granted = ask(&world, &word).await.expect(200);
        let access = granted.text("/data/access_token");
        let header = jsonwebtoken::decode_header(access).unwrap();
        assert_eq!(header.alg, algorithm);
        assert!(header.kid.is_some());
        assert!(is_accepted(&world, access).await, "{algorithm:?}");
        let by_secret = world.token(&claims(user(), "user"), &world.key(), Algorithm::HS256);
        assert!(!is_accepted(&world, &by_secret).await);
    }
}

#[tokio::test]
async fn keys_that_cannot_be_used_stop_the_start_and_are_not_shown() {
    let folder = scratch_folder("keys");
    let file = |name: &str| folder.path().join(name);
    let good = Pair::new(folder.path(), Algorithm::ES256, "good");
    let open = file("open.pem");
    fs::copy(&good.file, &open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let (short, garbage, set) = (file("short.pem"), file("garbage.pem"), file("jwks.json"));
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], &short);
    fs::write(&garbage, "canary-4c9b of no use").unwrap();
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o600)).unwrap();
    write_set(&set, &[&good]);
    let weak = file("weak.json");
    fs::write(&weak, r#"{"keys":[{"kty":"oct","k":"Y2FuYXJ5LTRjOWI"}]}"#).unwrap();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (nowhere, good_file) = (text(&file("nowhere")), text(&good.file));
    let (open, short, garbage) = (text(&open), text(&short), text(&garbage));
    let (set, weak) = (text(&set), text(&weak));
    let secret = "canary-4c9b-0123456789-abcdefghijklmnop";
    let (own, provider) = ("JWT_PRIVATE_KEY_FILE", "PROVIDER_JWKS_FILE");
    let table: Vec<(&str, Vec<(&str, &str)>)> = vec![
        (own, vec![(own, &open)]),
        (own, vec![(own, &short)]),
        (own, vec![(own, &garbage)]),
        (own, vec![(own, &nowhere)]),
        (own, vec![(own, &good_file), ("JWT_SECRET", secret)]),
        (provider, vec![(provider, &garbage)]),
        (provider, vec![(provider, &weak)]),
        (provider, vec![(provider, &nowhere)]),
        (provider, vec![(provider, &set), ("PROVIDER_JWT_SECRET", secret)]),
    ];
    let keys: Vec<String> = fs::read_to_string(&good.file)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("--"))
        .map(str::to_owned)
        .collect();
    for (named, variables) in &table {
        let said = refusal(folder.path(), "holdfast-api", "serve", variables).await;
        assert!(said.contains(named), "{variables:?}: {said}");
        for secret in
            ["canary-4c9b", "Y2FuYXJ5", "panicked"].into_iter().chain(keys.iter().map(|k| &**k))
        {
            assert!(!said.contains(secret), "{variables:?}: {said}");
        }
    }
    for variables in [("JWT_SECRET", secret), (own, good_file.as_str())] {
        let said = refusal(folder.path(), "holdfast-api", "token", &[variables]).await;
        assert!(said.contains(variables.0) && !said.contains("canary"), "{said}");
    }
}
