//! What the fuzzer calls, and what an ordinary test calls with the committed corpora. Each
//! takes what a daemon, or whoever sits on its socket, may send. None may panic, and none may
//! give another answer when the same bytes come in other pieces.

use anycast_announce::bird::export::exported;
use anycast_announce::bird::ospf::originated;
use anycast_announce::bird::reply::{Reply, ReplyError, ReplyParser};
use anycast_announce::doctor::bird_text;
use anycast_announce::doctor::frr_text::Config;
use anycast_announce::frr::advertised::{Advertised, is_established};
use anycast_announce::frr::vty;
use anycast_core::service::ServiceAddress;

fn bird(bytes: &[u8], piece: usize) -> (Vec<Reply>, Result<(), ReplyError>) {
    let mut parser = ReplyParser::new();
    let mut end = Ok(());
    for piece in bytes.chunks(piece.max(1)) {
        end = parser.handle_bytes(piece);
        if end.is_err() {
            break;
        }
    }
    (std::iter::from_fn(|| parser.poll_reply()).collect(), end)
}

fn services() -> Vec<ServiceAddress> {
    ["192.0.2.69/32", "2001:db8::69/128"]
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// BIRD's control socket: framing, and everything that the doctor reads.
pub(crate) fn bird_reply(bytes: &[u8]) {
    let (whole, end) = bird(bytes, bytes.len());
    let piece = usize::from(bytes.first().copied().unwrap_or(0) % 7) + 1;
    let (cut, cut_end) = bird(bytes, piece);
    assert_eq!((&whole, end.is_ok()), (&cut, cut_end.is_ok()));
    for reply in &whole {
        assert!(!reply.lines().is_empty());
        let _ = (bird_text::status(reply), bird_text::protocols(reply));
        let _ = (bird_text::routes(reply), bird_text::bfd(reply));
        let _ = (
            bird_text::stubs_at_zero(reply, "10.0.0.2"),
            bird_text::router_id(reply),
        );
    }
}

/// What BIRD exported: an answer only if the reply names the very prefix.
pub(crate) fn bird_export(bytes: &[u8]) {
    for reply in bird(bytes, bytes.len()).0 {
        for service in services() {
            let prefix = service.prefix().to_string();
            if let Ok(Some(_)) = originated(&reply, service) {
                assert!(reply.lines().iter().any(|line| line.text.contains(&prefix)));
            }
            if let Ok(Some(_)) = exported(&reply, service) {
                assert!(
                    reply
                        .lines()
                        .iter()
                        .any(|line| line.text.starts_with(&prefix))
                );
                assert!(!reply.is_error());
            }
        }
    }
}

fn frr(bytes: &[u8], piece: usize) -> Vec<vty::Reply> {
    let mut parser = vty::ReplyParser::new();
    let mut replies = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        if parser.handle_bytes(piece).is_err() {
            break;
        }
        replies.extend(std::iter::from_fn(|| parser.poll_reply()));
    }
    replies
}

/// FRR's vty socket: framing, and the configuration that the doctor reads.
pub(crate) fn frr_vty(bytes: &[u8]) {
    let whole = frr(bytes, bytes.len());
    let piece = usize::from(bytes.first().copied().unwrap_or(0) % 7) + 1;
    assert_eq!(whole, frr(bytes, piece));
    for reply in &whole {
        if reply.is_success() {
            assert_eq!(reply.status, 0);
        }
        let config = Config::parse(&reply.text);
        let _ = config.about_bgp();
    }
}

/// The JSON of what was sent, and of the sessions.
pub(crate) fn frr_advertised(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(sent) = Advertised::parse(&text) {
        for service in services() {
            if sent.route(service).is_some() {
                assert!(text.contains('{'));
            }
        }
    }
    for is_v4 in [true, false] {
        let _ = is_established(&text, is_v4, "10.0.0.1");
    }
}
