use rcgen::{CertificateParams, KeyPair};

use super::*;

const DAY: u64 = 86_400;
/// 2026-01-01 and 2026-04-01, in seconds since 1970.
const FROM: u64 = 1_767_225_600;
const UNTIL: u64 = 1_775_001_600;

fn judged(now: u64, days: u64) -> Verdict {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026, 4, 1);
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let left = Duration::from_secs(days * DAY);
    judge(
        "192.0.2.80:443".parse().unwrap(),
        certificate.der(),
        now,
        left,
    )
}

#[test]
fn a_certificate_is_judged_by_the_time_that_it_has_left() {
    assert_eq!(judged(UNTIL - 14 * DAY, 14), Verdict::Healthy);
    assert_eq!(
        judged(UNTIL - 14 * DAY + 1, 14),
        Verdict::unhealthy(
            "192.0.2.80:443: its certificate expires in 13 days, which is less than 14 days; renew it"
        )
    );
    assert_eq!(
        judged(UNTIL + 3 * DAY, 14),
        Verdict::unhealthy("192.0.2.80:443: its certificate expired 3 days ago")
    );
}

#[test]
fn one_that_is_not_valid_yet_blames_nobody() {
    let verdict = judged(FROM - 3600, 14);
    assert_eq!(
        verdict,
        Verdict::unknown(
            "192.0.2.80:443: its certificate becomes valid in 60 min, unless this host's clock is behind"
        )
    );
}

#[test]
fn garbage_is_no_certificate() {
    let target = "192.0.2.80:443".parse().unwrap();
    for garbage in [
        &b""[..],
        b"\x30",
        b"\x30\x84\xff\xff\xff\xff",
        &[0x30; 4096],
    ] {
        let verdict = judge(target, &CertificateDer::from(garbage), FROM, Duration::ZERO);
        assert!(
            matches!(&verdict, Verdict::Unhealthy(reason, _) if reason.as_str().contains("cannot be read")),
            "{verdict}"
        );
    }
}
