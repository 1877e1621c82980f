//! Where clients come in, where they go, and under which name that is logged: `[listen]`, `[backend]`, `[observe]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::lines::words;
use super::super::networks::Networks;
use super::draft::{Setting, list, quoted};
use super::values::Kind;
use super::{Import, Taken};
use crate::config::Config;

impl Import<'_> {
    pub(super) fn door(&mut self) {
        let name = self.parameters.value("myhostname");
        if self.parameters.is_set("myhostname") || name.is_ok_and(|name| name != self.host.hostname) {
            self.same("myhostname", Kind::Text, "", "hostname");
        }
        self.addresses();
        self.pass_on();
        self.backend();
        if let Some(protocol) = self.value("postscreen_upstream_proxy_protocol").filter(|word| !word.is_empty()) {
            self.leave(
                "postscreen_upstream_proxy_protocol",
                format!(
                    "'{protocol}': every client comes through a proxy, and which one postscreen does not say: set \
                     listen.proxy_from to the proxies' addresses and listen.mode = \"front\" before the first start, or \
                     all clients are taken for one"
                ),
            );
        }
        let program = self.value("syslog_name").map(|name| format!("{name}/postscreen"));
        if let Some(program) = program {
            let setting =
                Setting { table: "observe", key: "program", value: quoted(&program), from: "syslog_name".to_owned() };
            self.take("syslog_name", vec![setting]);
        }
    }

    fn addresses(&mut self) {
        let Some(name) = self.service.as_ref().map(|service| service.name.clone()) else { return };
        let (host, port) = name.rsplit_once(':').map_or((None, name.as_str()), |(host, port)| (Some(host), port));
        let port = match port {
            "smtp" => 25,
            other => match other.parse::<u16>() {
                Ok(port) => port,
                Err(_) => {
                    return self.leave(
                        "master.cf",
                        format!("'{name}': the port is a name: set listen.addresses and kernel.ports"),
                    );
                }
            },
        };
        let (Some(interfaces), Some(_)) = (self.value("inet_interfaces"), self.value("inet_protocols")) else {
            return;
        };
        let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        let mut addresses: Vec<IpAddr> = Vec::new();
        for word in host.map_or_else(|| words(&interfaces), |host| vec![host]) {
            match word {
                "all" => addresses.extend(everywhere),
                "loopback-only" | "localhost" => {
                    addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
                }
                _ => match self.addresses_of(word) {
                    none if none.is_empty() => {
                        self.leave(
                            if host.is_some() { "master.cf" } else { "inet_interfaces" },
                            format!(
                                "'{word}' is no name of an address of this host, and Postfix itself would refuse it: every \
                                 address is screened, or set listen.addresses"
                            ),
                        );
                        addresses.extend(everywhere);
                    }
                    found => addresses.extend(found),
                },
            }
        }
        // What is everywhere is also there.
        if everywhere.iter().all(|any| addresses.contains(any)) {
            addresses = everywhere.to_vec();
        }
        addresses.retain(|address| self.speaks(*address));
        let mut addresses: Vec<String> =
            addresses.into_iter().map(|address| SocketAddr::new(address, port).to_string()).collect();
        // Two names may lead to one address.
        let mut seen = Vec::new();
        addresses.retain(|address| {
            !seen.contains(address) && {
                seen.push(address.clone());
                true
            }
        });
        if addresses.is_empty() {
            return;
        }
        let from = "master.cf, inet_interfaces, inet_protocols".to_owned();
        let mut settings = vec![Setting { table: "listen", key: "addresses", value: list(addresses), from }];
        settings.push(Setting {
            table: "kernel",
            key: "ports",
            value: format!("[{port}]"),
            from: "master.cf".to_owned(),
        });
        self.take("master.cf", settings);
    }

    /// On which of our addresses a pass can be earned.
    fn pass_on(&mut self) {
        let name = "postscreen_allowlist_interfaces";
        let Some(text) = self.value(name) else { return };
        let networks = Networks::read(&text, self.host.files);
        for why in &networks.unclear {
            self.leave(name, format!("{why}; then look at listen.pass_on"));
        }
        networks.ignored.iter().for_each(|line| self.note(format!("{name}: {line}")));
        // Where no client connects nobody earns anything.
        let listen = Config::parse(&self.draft.written(), "").unwrap_or_default().listen;
        let outside = |address: &IpAddr| match address {
            IpAddr::V4(v4) => !v4.is_loopback(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        let own = self.host.addresses.iter().map(IpAddr::to_canonical).filter(outside);
        let own = own.filter(|address| listen.covers(*address, None));
        let (on, off): (Vec<IpAddr>, Vec<IpAddr>) = own.partition(|address| networks.has(*address));
        if off.is_empty() && networks.unclear.is_empty() {
            // Addresses that this host does not have yet, or only now and then, may be meant.
            match words(&text).as_slice() {
                ["static:all"] => {}
                _ => self.note(format!(
                    "{name} takes no address of this host out ({text}): if it is meant for another host, or for addresses that \
                     come later, set listen.pass_on there"
                )),
            }
            return self.taken.push(Taken { parameter: name.to_owned(), setting: "listen.pass_on = []".to_owned() });
        }
        if on.is_empty() {
            return self.leave(
                name,
                format!("'{text}' matches no address of this host, so nobody could earn a pass: set listen.pass_on; now all can"),
            );
        }
        if words(&text).iter().any(|word| word.starts_with("static:")) {
            self.note(format!(
                "{name}: of the addresses that this host has now; who connects to one that comes later earns no pass there, \
                 unless it is added to listen.pass_on"
            ));
        }
        let value = list(on.iter().map(ToString::to_string));
        self.take(name, vec![Setting { table: "listen", key: "pass_on", value, from: name.to_owned() }]);
    }

    fn backend(&mut self) {
        let (Some(name), Some(queue)) = (self.value("smtpd_service_name"), self.value("queue_directory")) else {
            return;
        };
        let found = self.services.iter().find(|service| service.kind == "pass" && service.name == name);
        let Some(service) = found else {
            if self.service.is_some() {
                self.leave(
                    "master.cf",
                    format!("there is no service `{name} pass … smtpd`: add `smtpd pass - - n - - smtpd`, or set [backend] (docs/handoff.md)"),
                );
            }
            return;
        };
        let directory = if service.is_private { "private" } else { "public" };
        let address = format!("unix:{queue}/{directory}/{name}");
        let from = "master.cf: smtpd pass";
        let setting = |key, value: &str| Setting { table: "backend", key, value: quoted(value), from: from.to_owned() };
        self.take("master.cf", vec![setting("address", &address), setting("handoff", "postfix-pass")]);
        self.note(
            "in master.cf port 25 becomes the MTA's own: `smtp inet n - y - - smtpd` in place of `smtp inet n - y - 1 postscreen`; \
             `smtpd pass` stays (docs/from-postscreen.md)",
        );
    }
}
