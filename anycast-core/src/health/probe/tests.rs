use super::*;

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[cfg(feature = "config")]
#[test]
fn only_the_services_own_addresses_are_probed() {
    let service = ["192.0.2.1/32", "2001:db8::1/128"].map(|a| a.parse().unwrap());
    let service = ServiceAddresses::new(service.to_vec()).unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(chosen(&service, None).unwrap(), service);
    let one = chosen(&service, Some(&[ip("2001:db8::1")])).unwrap();
    assert_eq!(one.count(), 1);
    let (first, stranger) = (ip("192.0.2.1"), ip("192.0.2.9"));
    for bad in [vec![], vec![stranger], vec![first, first]] {
        let error = chosen(&service, Some(&bad)).unwrap_err();
        assert!(error.starts_with("addresses: "), "{error}");
    }
}

#[test]
fn what_ran_out_on_this_host_is_the_checkers_own() {
    let target = "127.0.0.1:9";
    // EPERM, ENOMEM, EACCES, ENFILE, EMFILE, ENOSPC (of epoll), EADDRINUSE, ENOBUFS
    for code in [1, 12, 13, 23, 24, 28, 98, 105] {
        let verdict = verdict_on(target, "connecting", &error(code));
        assert!(matches!(verdict, Verdict::Unknown(_)), "{code}: {verdict}");
    }
    // ENETUNREACH, ECONNRESET, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH, EADDRNOTAVAIL
    for code in [101, 104, 110, 111, 113, 99] {
        let verdict = verdict_on(target, "connecting", &error(code));
        assert!(
            matches!(verdict, Verdict::Unhealthy(..)),
            "{code}: {verdict}"
        );
    }
}

#[tokio::test]
async fn a_connection_with_itself_counts_as_refused() {
    // The same socket bound to the port that it connects to: what the kernel does by chance.
    let socket = tcp_socket("127.0.0.1:0".parse().unwrap(), Source::Service).unwrap();
    let target = socket.local_addr().unwrap().as_socket().unwrap();
    let _ = socket.connect(&SockAddr::from(target));
    let verdict = not_with_itself(target, &socket).unwrap_err();
    assert!(matches!(verdict, Verdict::Unhealthy(..)), "{verdict}");
    let verdict = arrive(target, socket).await.unwrap_err();
    assert!(matches!(verdict, Verdict::Unhealthy(..)), "{verdict}");
    assert!(verdict.to_string().contains("nobody listens"), "{verdict}");
}

/// What makes a probe of the local node cheap.
#[test]
fn a_local_connection_needs_no_waiting() {
    let listener = tcp_socket("127.0.0.1:0".parse().unwrap(), Source::Service).unwrap();
    listener.listen(8).unwrap();
    let target = listener.local_addr().unwrap().as_socket().unwrap();
    let complete = (0..8).any(|_| {
        // Without a runtime: its poller is not asked.
        matches!(dial(target, Source::Service), Ok(Dialled::Complete(_)))
    });
    assert!(complete);
    drop(listener);
    let refused = dial(target, Source::Service);
    assert!(!matches!(refused, Ok(Dialled::Complete(_))));
}

#[tokio::test]
async fn an_address_that_this_node_lacks_is_the_services_fault() {
    let target = "192.0.2.1:80".parse().unwrap();
    let verdict = tcp(target, Source::Service).await.unwrap_err();
    let expected = Verdict::unhealthy("192.0.2.1:80: the address is not on this node");
    assert_eq!(verdict, expected);
}
