//! Who is let in and who is kept out by address: `listen.own_networks`, `[[permit]]` and `[[deny]]`.

use ipnet::IpNet;

use super::super::access::{Access, Verdict};
use super::super::networks::Networks;
use super::draft::{Setting, list, quoted};
use super::values::Kind;
use super::{Import, Taken};
use crate::config::Config;
use crate::feed::{Holes, Span};

impl Import<'_> {
    /// Who is let in and who is kept out by address.
    pub(super) fn access(&mut self) {
        let name = "postscreen_access_list";
        let Some(text) = self.value(name) else { return };
        let by_style = !self.parameters.is_set("mynetworks");
        let named = match self.value("mynetworks") {
            None => return,
            Some(_) if by_style => self.networks_by_style(),
            Some(networks) => Ok(networks),
        };
        let own = Networks::read(named.as_deref().unwrap_or_default(), self.host.files);
        let access = Access::read(&text, &own, self.host.files);
        for why in &access.unclear {
            self.leave(name, format!("{why}; nobody was taken over who is let in by what stands behind it"));
        }
        access.ignored.iter().for_each(|line| self.note(line.clone()));
        if access.has_own_networks {
            own.unclear.iter().for_each(|why| self.leave("mynetworks", why.clone()));
            own.ignored.iter().for_each(|line| self.note(format!("mynetworks: {line}")));
            match named {
                Err(why) => {
                    self.leave("mynetworks", format!("it is not set, and {why}: write it, or listen.own_networks"));
                }
                Ok(networks) if by_style && !networks.is_empty() => self.note(format!(
                    "mynetworks is not set: by mynetworks_style it is {networks}, as this host's interfaces are now"
                )),
                Ok(_) => {}
            }
        } else {
            self.note(
                "this host's own addresses are never screened here, whatever postscreen_access_list says of them",
            );
        }
        self.own_networks(&access);
        let mut permits = Vec::new();
        for (net, verdict) in access.claims.prefixes() {
            if let Verdict::Permit(place) = verdict {
                permits.push(format!("[[permit]]\nprefix = \"{net}\"\ncomment = {}\n", quoted(place)));
            }
        }
        let permitted = permits.len();
        match self.draft.blocks(&permits) {
            Ok(()) => self.took(name, permitted, "[[permit]]"),
            Err(why) => self.leave(name, format!("nobody was permitted: {why}")),
        }
        self.denies(&self.denied(&access));
        for (_, verdict) in access.claims.iter() {
            if let Verdict::RejectMany(place) = verdict {
                self.leave(
                    name,
                    format!(
                        "{place} rejects everybody else, or so many (more than a /8, or a /16 of IPv6) that nothing in our \
                         configuration may: whom it rejects is screened; close the port to them"
                    ),
                );
            }
        }
    }

    fn own_networks(&mut self, access: &Access) {
        let mut networks: Vec<IpNet> = Config::default().listen.own_networks;
        for (net, verdict) in access.claims.prefixes() {
            if *verdict == Verdict::OwnNetwork && !networks.contains(&net) {
                networks.push(net);
            }
        }
        let value = list(networks.iter().map(ToString::to_string));
        let from = "mynetworks".to_owned();
        self.take("mynetworks", vec![Setting { table: "listen", key: "own_networks", value, from }]);
    }

    /// Who is rejected, without whom our configuration may not deny: this host, its networks and its gateways.
    fn denied(&self, access: &Access) -> Vec<(IpNet, String)> {
        let listen = Config::parse(&self.draft.written(), "").unwrap_or_default().listen;
        let addresses = self.host.addresses.iter().chain(&self.host.gateways);
        let guarded = addresses.map(|address| IpNet::from(address.to_canonical())).chain(listen.own_networks);
        let guarded = Holes::new(guarded.map(Span::from).collect());
        let rejected = access.claims.iter().filter_map(|(span, verdict)| match verdict {
            Verdict::Reject(place) => Some((span, place)),
            _ => None,
        });
        let parts = rejected.flat_map(|(span, place)| guarded.cut(span).into_iter().map(move |part| (part, place)));
        parts.flat_map(|(part, place)| part.prefixes().map(move |net| (net, place.clone()))).collect()
    }

    fn denies(&mut self, denies: &[(IpNet, String)]) {
        let name = "postscreen_denylist_action";
        let action = self.value(name).unwrap_or_default();
        let action = match Kind::Action.written(&action).as_deref() {
            Ok("\"ignore\"") => "count",
            Ok("\"enforce\"" | "\"drop\"") => "reject",
            _ => {
                if !denies.is_empty() {
                    self.leave(
                        name,
                        format!("'{action}' is no action, and Postfix itself would refuse it: the denied are refused"),
                    );
                }
                "reject"
            }
        };
        if denies.is_empty() {
            return;
        }
        let mut blocks = Vec::new();
        for (net, place) in denies {
            blocks.push(format!("[[deny]]\nprefix = \"{net}\"\naction = \"{action}\"\ncomment = {}\n", quoted(place)));
        }
        let denied = blocks.len();
        match self.draft.blocks(&blocks) {
            Ok(()) => self.took("postscreen_access_list", denied, "[[deny]]"),
            Err(why) => self.leave("postscreen_access_list", format!("nobody was denied: {why}")),
        }
        let what = match action {
            "count" => "a denied client is only counted (action = \"count\"), as postscreen ignores it",
            _ => "a denied client is refused at once (action = \"reject\"), in the kernel where it can be",
        };
        self.note(format!("{name}: {what}"));
    }

    fn took(&mut self, parameter: &str, count: usize, table: &str) {
        if count > 0 {
            self.taken.push(Taken { parameter: parameter.to_owned(), setting: format!("{count} {table}") });
        }
    }
}
