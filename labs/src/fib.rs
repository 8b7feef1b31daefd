//! Where a kernel forwards, read from `/proc`: cheap enough to be looked at many times a second.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netns::Netns;
use crate::node::NodeError;

/// The device to which `namespace` forwards packets for this very address: that of its host
/// route (/32, /128) of the lowest metric. `None` without such a route. A route over several
/// next hops shows the first one in IPv4.
///
/// # Errors
/// [`NodeError::Netns`]; [`NodeError::File`] when the kernel does not show its routes.
pub fn device(namespace: &Netns, address: IpAddr) -> Result<Option<String>, NodeError> {
    let path = match address {
        IpAddr::V4(_) => "/proc/thread-self/net/route",
        IpAddr::V6(_) => "/proc/thread-self/net/ipv6_route",
    };
    let table = namespace
        .enter(|| fs::read_to_string(path))?
        .map_err(|source| NodeError::File {
            path: path.into(),
            source,
        })?;
    Ok(match address {
        IpAddr::V4(address) => find4(&table, address),
        IpAddr::V6(address) => find6(&table, address),
    })
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses as the memory has them.
fn find4(table: &str, address: Ipv4Addr) -> Option<String> {
    let wanted = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let routes = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, destination, _, _, _, _, metric, mask, ..] = words[..] else {
            return None;
        };
        let metric: u32 = metric.parse().ok()?;
        (destination == wanted && mask == "FFFFFFFF").then(|| (metric, device.to_owned()))
    });
    lowest(routes)
}

/// `destination length source length next-hop metric references use flags device`, in hex.
fn find6(table: &str, address: Ipv6Addr) -> Option<String> {
    let wanted: String = address
        .octets()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let routes = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [destination, "80", _, _, _, metric, _, _, _, device] = words[..] else {
            return None;
        };
        let metric = u32::from_str_radix(metric, 16).ok()?;
        (destination == wanted && device != "lo").then(|| (metric, device.to_owned()))
    });
    lowest(routes)
}

/// Of equal ones the first.
fn lowest(routes: impl Iterator<Item = (u32, String)>) -> Option<String> {
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, device)| device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_route_of_the_lowest_metric_is_found() {
        let destination = format!("{:08X}", u32::from_ne_bytes([192, 0, 2, 69]));
        let line = |device: &str, destination: &str, metric: u32, mask: &str| {
            format!("{device}\t{destination}\t0B0A0A0A\t0003\t0\t0\t{metric}\t{mask}\t0\t0\t0\n")
        };
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n".to_owned()
            + &line("up", "00000000", 0, "00000000")
            + &line("site-b", &destination, 32, "FFFFFFFF")
            + &line("site-a", &destination, 20, "FFFFFFFF");
        let service = Ipv4Addr::new(192, 0, 2, 69);
        assert_eq!(find4(&table, service).as_deref(), Some("site-a"));
        assert_eq!(find4(&table, Ipv4Addr::new(192, 0, 2, 70)), None);
    }

    #[test]
    fn the_ipv6_host_route_is_found_and_the_local_one_is_not() {
        let zero = "0".repeat(32);
        let line = |device: &str, length: &str, metric: &str| {
            format!(
                "20010db8000000000000000000000069 {length} {zero} 00 {zero} {metric} 00000001 00000000 00000003 {device}\n"
            )
        };
        let table = line("lo", "80", "00000000")
            + &line("site-b", "80", "00000400")
            + &line("site-c", "80", "00000020")
            + &line("site-a", "40", "00000001");
        let service = "2001:db8::69".parse().unwrap();
        assert_eq!(find6(&table, service).as_deref(), Some("site-c"));
    }
}
