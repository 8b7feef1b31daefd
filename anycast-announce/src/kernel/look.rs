//! All addresses and their interfaces, read for the doctor. Changes nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::IpAddr;

use rtnetlink::LinkUnspec;

use super::config::ADDRESS_PROTOCOL;
use super::netlink::{Failure, Netlink};
use super::plan::{Link, LinkKind};
use crate::doctor::kernel::{Address, Interface, InterfaceKind};

/// Reads them in the network namespace of the calling thread.
///
/// # Errors
/// What the kernel said.
pub(crate) async fn addresses() -> io::Result<Vec<Address>> {
    read().await.map_err(io::Error::other)
}

async fn read() -> Result<Vec<Address>, Failure> {
    let mut netlink = Netlink::open()?;
    let mut links: BTreeMap<u32, Option<Link>> = BTreeMap::new();
    let mut found = Vec::new();
    for address in netlink.addresses().await? {
        let link = match links.entry(address.index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                let query = LinkUnspec::new_with_index(address.index).build();
                free.insert(netlink.link(query).await?)
            }
        };
        let Some(link) = link else {
            continue; // gone in between
        };
        found.push(Address {
            ip: address.ip,
            peer: address.peer,
            is_host: match address.ip {
                IpAddr::V4(_) => address.prefix_len == 32,
                IpAddr::V6(_) => address.prefix_len == 128,
            },
            is_permanent: address.permanent,
            is_ours: address.proto == Some(ADDRESS_PROTOCOL),
            interface: Interface {
                name: link.name.clone(),
                is_marked: link.is_marked(),
                kind: match link.kind {
                    LinkKind::Loopback => InterfaceKind::Loopback,
                    LinkKind::Dummy => InterfaceKind::Dummy,
                    LinkKind::Veth(_) => InterfaceKind::Veth,
                    LinkKind::Other => InterfaceKind::Other,
                },
            },
        });
    }
    Ok(found)
}
