//! Who is let in and who is kept out by address: `listen.own_networks`, `[[permit]]` and `[[deny]]`.

use ipnet::IpNet;

use super::super::access::{Access, Verdict};
use super::super::networks::Networks;
use super::draft::{Setting, list, quoted};
use super::values::Kind;
use super::{Import, Taken};
use crate::config::Config;

impl Import<'_> {
    /// Who is let in and who is kept out by address.
    pub(super) fn access(&mut self) {
        let name = "postscreen_access_list";
        let (Some(text), Some(networks)) = (self.value(name), self.value("mynetworks")) else { return };
        let own = Networks::read(&networks, self.host.files);
        let access = Access::read(&text, &own, self.host.files);
        for why in &access.unclear {
            self.leave(name, format!("{why}; nobody was taken over who is let in by what stands behind it"));
        }
        access.ignored.into_iter().for_each(|line| self.note(line));
        if access.has_own_networks {
            own.unclear.iter().for_each(|why| self.leave("mynetworks", why.clone()));
            self.own_networks(&networks);
        } else {
            self.note(
                "this host's own addresses are never screened here, whatever postscreen_access_list says of them",
            );
        }
        let mut networks: Vec<IpNet> = Config::default().listen.own_networks;
        let (mut permits, mut denies) = (Vec::new(), Vec::new());
        for (net, verdict) in access.claims.prefixes() {
            match verdict {
                Verdict::OwnNetwork if !networks.contains(&net) => networks.push(net),
                Verdict::OwnNetwork | Verdict::End => {}
                Verdict::Permit(place) => {
                    permits.push(format!("[[permit]]\nprefix = \"{net}\"\ncomment = {}\n", quoted(place)));
                }
                Verdict::Reject(place) => denies.push((net, place.clone())),
            }
        }
        let value = list(networks.iter().map(ToString::to_string));
        self.take(
            "mynetworks",
            vec![Setting { table: "listen", key: "own_networks", value, from: "mynetworks".to_owned() }],
        );
        let permitted = permits.len();
        match self.draft.blocks(&permits) {
            Ok(()) => self.took(name, permitted, "[[permit]]"),
            Err(why) => self.leave(name, format!("nobody was permitted: {why}")),
        }
        self.denies(&denies);
    }

    fn own_networks(&mut self, text: &str) {
        if text.is_empty() && !self.parameters.is_set("mynetworks") {
            match self.value("mynetworks_style").as_deref() {
                Some("host") => {}
                style => {
                    let style = style.unwrap_or_default().to_owned();
                    self.leave(
                        "mynetworks",
                        format!("it is not set, and with mynetworks_style = {style} Postfix takes the networks of this host's \
                             interfaces: write those that are your own into listen.own_networks (`postconf mynetworks` names them)"),
                    );
                }
            }
        }
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
            if net.prefix_len() == 0 {
                self.leave(
                    "postscreen_access_list",
                    format!("{place} rejects everybody else: nothing in our configuration may; permit yours and close the port to the rest"),
                );
                continue;
            }
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
