//! The backup route on the routers: less specific, static, to one site. Pure.

use std::fmt::Write;
use std::net::IpAddr;

use anycast_core::service::ServiceAddress;

/// The usual backup is one that every router takes: a /24, or a /48.
const LENGTHS: [(bool, u8); 2] = [(true, 24), (false, 48)];

/// A route that covers the service and no more than is announced elsewhere.
fn covering(service: ServiceAddress) -> String {
    let is_v4 = service.ip().is_ipv4();
    let length = LENGTHS.iter().find(|(v4, _)| *v4 == is_v4);
    let length = length.map_or(0, |(_, length)| *length);
    let mut prefix = service.prefix();
    while prefix.prefix_len() > length {
        match prefix.supernet() {
            Some(shorter) => prefix = shorter,
            None => break,
        }
    }
    prefix.trunc().to_string()
}

/// What to add to the routers' configuration, for BIRD and for FRR, of the families given.
/// `via` are the unicast addresses of the site that is the last hope; without one of a family
/// a placeholder stands there.
#[must_use]
pub fn backup_route(services: &[ServiceAddress], via: &[IpAddr]) -> String {
    let mut routes: Vec<(bool, String, String)> = Vec::new();
    for service in services {
        let is_v4 = service.ip().is_ipv4();
        let hop = via.iter().find(|one| one.is_ipv4() == is_v4);
        let hop = hop.map_or(
            "UNICAST-ADDRESS-OF-ONE-SITE".to_owned(),
            ToString::to_string,
        );
        let route = (is_v4, covering(*service), hop);
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    let mut text = String::from(
        "# On the routers, not on the nodes: less specific than what the nodes announce, so that\n\
         # it is used only when no node announces anything. Cut the prefix to what is yours.\n\n\
         # BIRD 2 or 3 (router)\n",
    );
    for (is_v4, prefix, hop) in &routes {
        let family = if *is_v4 { "ipv4" } else { "ipv6" };
        let name = if *is_v4 { "4" } else { "6" };
        let _ = writeln!(
            text,
            "protocol static anycast_backup{name} {{\n  {family} {{ preference 1; }};\n  route \
             {prefix} recursive {hop};\n}}"
        );
    }
    text.push_str("\n! FRR (router)\n");
    for (is_v4, prefix, hop) in &routes {
        let ip = if *is_v4 { "ip" } else { "ipv6" };
        let _ = writeln!(text, "{ip} route {prefix} {hop} 250");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_daemons_and_families_are_written() {
        let services = ["192.0.2.69/32", "2001:db8::69/128"].map(|text| text.parse().unwrap());
        let via = ["10.0.0.2", "2001:db8:0:1::2"].map(|text| text.parse().unwrap());
        let text = backup_route(&services, &via);
        for line in [
            "  route 192.0.2.0/24 recursive 10.0.0.2;",
            "  route 2001:db8::/48 recursive 2001:db8:0:1::2;",
            "ip route 192.0.2.0/24 10.0.0.2 250",
            "ipv6 route 2001:db8::/48 2001:db8:0:1::2 250",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let text = backup_route(&services[..1], &[]);
        assert!(text.contains("ip route 192.0.2.0/24 UNICAST-ADDRESS-OF-ONE-SITE 250"));
        assert!(!text.contains("ipv6"));
    }
}
