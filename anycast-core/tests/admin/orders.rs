//! Orders: what they do, and from whom they are taken.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anycast_core::admin::{Admin, AdminConfig, AdminError, TokenError};
use anycast_core::announce::{InForce, Preference};
use anycast_core::testing::fakes::Behaviour;

use crate::support::{Endpoint, JSON, Reply, TOKEN, post, write_token};

#[tokio::test]
async fn a_drain_demotes_and_an_undrain_lifts_it() {
    let endpoint = Endpoint::start().await;
    let answer = endpoint
        .order("drain", r#"{"reason": " kernel\nupdate ", "for": "2h"}"#)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    assert_eq!(told["node"], "ams1");
    assert_eq!(told["service"], "tftp");
    assert_eq!(told["order"], "drain");
    assert_eq!(told["reason"], "kernel update");
    assert_eq!(told["for_s"], 7200.0);
    assert_eq!(told["preference"], "demoted");
    assert_eq!(told["in_force"], true);
    assert_eq!(told["status"]["preference"], "demoted");
    let reason = told["status"]["reason"].as_str().unwrap();
    assert!(reason.contains("kernel update"), "{reason}");
    let by = told["by"].as_str().unwrap();
    assert!(
        by.contains("uid ") && by.contains(&format!("pid {}", std::process::id())),
        "{by}"
    );
    assert_eq!(endpoint.announcer.in_force(), InForce::Demoted);
    let answer = endpoint.order("undrain", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["order"], "undrain");
    endpoint.in_force(Preference::Preferred).await;
}

#[tokio::test]
async fn an_order_lapses_and_a_withdrawal_withdraws() {
    let endpoint = Endpoint::start().await;
    let answer = endpoint.order("withdraw", r#"{"for": "1s"}"#).await;
    let told = answer.json();
    assert_eq!(told["preference"], "withdrawn", "{answer:?}");
    assert_eq!(told["reason"], "no reason given");
    let withdrawn = |(_, preference): &(_, Preference)| preference.is_withdrawn();
    assert!(endpoint.announcer.applied().iter().any(withdrawn));
    endpoint.in_force(Preference::Preferred).await;
}

#[tokio::test]
async fn an_order_that_cannot_be_applied_stands_and_says_so() {
    let endpoint = Endpoint::start().await;
    endpoint.announcer.set_failing(true);
    let answer = endpoint.order("drain", "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    assert_eq!(told["in_force"], false);
    let warnings = told["warnings"].to_string();
    assert!(warnings.contains("not in force yet"), "{warnings}");
    endpoint.announcer.set_failing(false);
    endpoint.in_force(Preference::Demoted).await;
}

#[tokio::test]
async fn a_node_without_a_fleet_drains_with_a_warning_unless_it_changes_nothing() {
    let endpoint = Endpoint::start().await;
    let answer = endpoint.order("drain", "{}").await;
    let warnings = answer.json()["warnings"].to_string();
    assert!(warnings.contains("was not checked"), "{warnings}");
    // It is not preferred any more, so that the second takes nothing away.
    let answer = endpoint.order("drain", "{}").await;
    let warnings = answer.json()["warnings"].to_string();
    assert!(!warnings.contains("was not checked"), "{warnings}");
}

#[tokio::test]
async fn bad_bodies_change_nothing() {
    let endpoint = Endpoint::start().await;
    for (verb, body, why) in [
        ("drain", "{", "cannot be read"),
        ("drain", "[]", "cannot be read"),
        ("drain", "\"2h\"", "cannot be read"),
        ("drain", "null", "cannot be read"),
        ("drain", r#"{"forr": "2h"}"#, "forr"),
        ("drain", r#"{"for": 7200}"#, "cannot be read"),
        ("drain", r#"{"force": "yes"}"#, "cannot be read"),
        ("drain", r#"{"for": "soon"}"#, "soon"),
        ("drain", r#"{"for": "0s"}"#, "between 1s and 10 years"),
        ("drain", r#"{"for": "11years"}"#, "between 1s and 10 years"),
        ("drain", r#"{"for": "-2h"}"#, "between 1s and 10 years"),
        ("drain", "{} {}", "cannot be read"),
        ("drain", "{\"reason\": \"\u{0}", "cannot be read"),
        ("undrain", r#"{"for": "2h"}"#, "no effect"),
        ("undrain", r#"{"force": true}"#, "no effect"),
    ] {
        let answer = endpoint.order(verb, body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.error().contains(why), "{body}: {answer:?}");
    }
    let nested = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    assert_eq!(endpoint.order("drain", &nested).await.status, 400);
    assert!(endpoint.is_untouched());
}

#[tokio::test]
async fn unknown_services_and_paths_that_lead_elsewhere_are_404() {
    let endpoint = Endpoint::start().await;
    for path in [
        "/services/dns/drain",
        "/services/../drain",
        "/services/%74ftp/drain",
        "/services/tftp%2fdrain",
        "/services/tftp/../tftp/drain",
        "/services/../../etc/passwd",
        "/services/tftp/drain/",
        "/services/tftp//drain",
        "//services/tftp/drain",
        "/status/../services/tftp/drain",
        "/services/a b/drain",
    ] {
        let request = post(path, &[("Host", "localhost"), JSON], "{}");
        let answer = endpoint.ask_socket(&request).await;
        let status = Reply::read(&answer).status;
        assert!(matches!(status, 404 | 400), "{path}: {answer}");
    }
    assert!(endpoint.is_untouched());
}

#[tokio::test]
async fn without_a_token_tcp_takes_no_orders_and_names_the_remedy() {
    let endpoint = Endpoint::start().await;
    let token = format!("Bearer {TOKEN}");
    for headers in [&[][..], &[("Authorization", token.as_str())]] {
        let answer = endpoint.order_tcp("drain", headers).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        let error = answer.error();
        assert!(
            error.contains("token_file") && error.contains("Unix socket"),
            "{error}"
        );
    }
    assert_eq!(endpoint.get("/status").await.status, 200);
    assert!(endpoint.is_untouched());
}

#[tokio::test]
async fn only_the_token_opens_tcp() {
    let endpoint = Endpoint::with_token().await;
    let longer = format!("Bearer {TOKEN}x");
    let basic = format!("Basic {TOKEN}");
    let right = format!("Bearer {TOKEN}");
    for wrong in [
        &[][..],
        &[("Authorization", "Bearer")],
        &[("Authorization", "Bearer ")],
        &[("Authorization", "Bearer wrong-token-of-some-length")],
        &[("Authorization", longer.as_str())],
        &[("Authorization", basic.as_str())],
        &[("Authorization", TOKEN)],
        &[
            ("Authorization", right.as_str()),
            ("Authorization", right.as_str()),
        ],
    ] {
        let answer = endpoint.order_tcp("drain", wrong).await;
        assert_eq!(answer.status, 401, "{wrong:?}: {answer:?}");
        assert!(answer.head.contains("www-authenticate: bearer"));
        assert!(!answer.body.contains(TOKEN));
    }
    assert!(endpoint.is_untouched());
    let answer = endpoint
        .order_tcp("drain", &[("Authorization", right.as_str())])
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let by = answer.json()["by"].as_str().unwrap().to_owned();
    assert!(
        by.contains("the holder of the token, from 127.0.0.1:"),
        "{by}"
    );
    assert_eq!(endpoint.announcer.in_force(), InForce::Demoted);
    // A new token counts at once, and one that is gone or open to others opens nothing.
    let path = endpoint.folder.path().join("token");
    write_token(&path, "another-token-of-some-length", 0o600);
    let undrain = [("Authorization", right.as_str())];
    assert_eq!(endpoint.order_tcp("undrain", &undrain).await.status, 401);
    write_token(&path, TOKEN, 0o644);
    let answer = endpoint.order_tcp("undrain", &undrain).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.error().contains("chmod 640"), "{answer:?}");
    fs::remove_file(&path).unwrap();
    assert_eq!(endpoint.order_tcp("undrain", &undrain).await.status, 403);
    assert_eq!(endpoint.announcer.in_force(), InForce::Demoted);
}

#[tokio::test]
async fn a_browser_gives_no_orders() {
    let endpoint = Endpoint::with_token().await;
    let token = format!("Authorization: Bearer {TOKEN}");
    let json = "Content-Type: application/json";
    for (headers, status) in [
        (
            vec!["Host: localhost", json, "Origin: http://localhost"],
            403,
        ),
        (vec!["Host: localhost", json, "Origin: null"], 403),
        (vec!["Host: localhost", json, "Sec-Fetch-Site: none"], 403),
        (vec!["Host: evil.example", json], 403),
        (vec!["Host: evil.example:9180", json], 403),
        (vec!["Host: localhost", "Host: evil.example", json], 403),
        (vec!["Host: localhost"], 415),
        (vec!["Host: localhost", "Content-Type: text/plain"], 415),
        (
            vec![
                "Host: localhost",
                "Content-Type: application/x-www-form-urlencoded",
            ],
            415,
        ),
    ] {
        let head = [vec![token.as_str()], headers.clone()]
            .concat()
            .join("\r\n");
        let request = format!(
            "POST /services/tftp/drain HTTP/1.1\r\n{head}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        let answer = Reply::read(&endpoint.ask(request.as_bytes()).await);
        assert!(
            answer.status == status || answer.status == 400,
            "{headers:?}: {answer:?}"
        );
        assert!(!answer.head.contains("access-control"));
    }
    assert!(endpoint.is_untouched());
}

#[tokio::test]
async fn a_token_that_others_can_read_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write_token(&path, TOKEN, 0o600);
    let config: AdminConfig = "127.0.0.1:0".parse().unwrap();
    let config = config.with_token_file(path.clone()).unwrap();
    assert!(Admin::bind(&config).await.is_ok());
    fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(
        Admin::bind(&config).await,
        Err(AdminError::Token(TokenError::TooOpen { mode: 0o604, .. }))
    ));
}

/// The client goes away in the middle; the order stands all the same, and is a whole one.
#[tokio::test]
async fn an_order_is_carried_out_when_its_client_has_gone() {
    use tokio::io::AsyncWriteExt;
    let endpoint = Endpoint::start().await;
    endpoint.announcer.set_slow(Duration::from_millis(300));
    let mut stream = tokio::net::UnixStream::connect(&endpoint.socket)
        .await
        .unwrap();
    let request = post(
        "/services/tftp/drain",
        &[("Host", "localhost"), JSON],
        r#"{"reason": "gone"}"#,
    );
    stream.write_all(&request).await.unwrap();
    endpoint.decided(Preference::Demoted).await;
    drop(stream);
    endpoint.in_force(Preference::Demoted).await;
    endpoint.check.set(Behaviour::Panic);
    endpoint.announcer.set_slow(Duration::ZERO);
    let status = endpoint.get("/status").await.json();
    let reason = status["services"][0]["reason"].to_string();
    assert!(reason.contains("gone"), "{reason}");
}

/// What an answer calls in force is what the announcer says; an order that was heard, and not
/// yet decided on, is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_an_answer_calls_in_force_is() {
    let endpoint = Endpoint::start().await;
    for _ in 0..40 {
        for (verb, expected) in [
            ("drain", InForce::Demoted),
            ("withdraw", InForce::Withdrawn),
        ] {
            let answer = endpoint.order(verb, "{}").await;
            let found = endpoint.announcer.in_force();
            assert_eq!(answer.json()["in_force"], true, "{answer:?}");
            assert_eq!(found, expected, "{answer:?}");
        }
    }
}
