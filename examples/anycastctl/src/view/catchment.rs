//! `anycastctl catchment`: which node answers which clients.

use std::collections::BTreeMap;

use crate::model::{Clients, Node};
use crate::text::{Span, Style, Table, Text};

/// A line a client network, those that ask most first, with the nodes that answer it by share.
pub(crate) fn show(node: &Node, width: Option<usize>) -> Text {
    let told = nodes(node);
    let mut text = Text::default();
    if told.is_empty() {
        text.line(["no node counts its clients".into()]);
        return text;
    }
    let mut networks: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for (name, clients) in &told {
        for one in &clients.top {
            let of = networks.entry(&one.network).or_default();
            of.push((name, one.requests));
        }
    }
    let total = |of: &[(&str, u64)]| of.iter().fold(0_u64, |sum, of| sum.saturating_add(of.1));
    let mut networks: Vec<_> = networks.into_iter().collect();
    networks.sort_by_key(|(network, of)| (std::cmp::Reverse(total(of)), *network));
    let mut table = Table::new(["CLIENTS", "REQUESTS", "ANSWERED BY"]);
    for (network, mut of) in networks {
        of.sort_by_key(|(name, requests)| (std::cmp::Reverse(*requests), *name));
        let all = total(&of);
        table.row([
            network.into(),
            all.to_string().into(),
            shares(&of, all).into(),
        ]);
    }
    text.append(table.layout(width));
    text.blank();
    let names = told.iter().map(|(name, clients)| (*name, clients.total));
    let mut names: Vec<_> = names.collect();
    names.sort_by_key(|(name, requests)| (std::cmp::Reverse(*requests), *name));
    let all = total(&names);
    let line = format!("of {all} requests of late: {}", shares(&names, all));
    text.line([Span::new(Style::Dim, &line)]);
    text
}

/// What each node counted, this one first.
fn nodes(node: &Node) -> Vec<(&str, &Clients)> {
    let mesh = node.mesh.as_ref();
    let own = node.tftp.as_ref().and_then(|tftp| tftp.clients.as_ref());
    let own = own.or_else(|| mesh?.clients.as_ref());
    let own = own.map(|clients| (node.node.as_str(), clients));
    let peers = mesh.into_iter().flat_map(|mesh| &mesh.peers);
    let peers = peers.filter_map(|peer| Some((peer.node.as_str(), peer.clients.as_ref()?)));
    own.into_iter().chain(peers).collect()
}

/// `ams1 75%, fra1 25%`.
fn shares(of: &[(&str, u64)], all: u64) -> String {
    let share = |requests: u64| {
        let half = u128::from(all / 2);
        let percent = (u128::from(requests) * 100 + half) / u128::from(all.max(1));
        percent.to_string()
    };
    let one = |(name, requests): &(&str, u64)| format!("{name} {}%", share(*requests));
    of.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        let node: Node = serde_json::from_str(json).unwrap();
        show(&node, None).render(false).join("\n")
    }

    #[test]
    fn each_network_has_its_nodes_by_share() {
        let json = r#"{"node": "ams1", "services": [],
            "tftp": {"blocks_sent": 7, "clients": {"total": 40, "age_s": 0.0, "top": [
                {"network": "192.0.2.0/24", "requests": 10},
                {"network": "2001:db8:7::/48", "requests": 30}]}},
            "mesh": {"peers": [
                {"node": "fra1", "clients": {"total": 60, "top": [
                    {"network": "192.0.2.0/24", "requests": 30}]}},
                {"node": "lon1"}]}}"#;
        assert_eq!(
            shown(json),
            "CLIENTS          REQUESTS  ANSWERED BY\n\
             192.0.2.0/24     40        fra1 75%, ams1 25%\n\
             2001:db8:7::/48  30        ams1 100%\n\n\
             of 100 requests of late: fra1 60%, ams1 40%"
        );
    }

    #[test]
    fn who_counts_nothing_says_so() {
        let text = shown(r#"{"node": "ams1", "services": []}"#);
        assert_eq!(text, "no node counts its clients");
    }
}
