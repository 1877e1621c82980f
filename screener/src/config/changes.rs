//! What is different between the configuration that runs and the one that was read again, key by key.
//!
//! Holds one table of all keys and, for each, whether a change of it takes effect while the daemon runs. A key that is not in
//! the table does not compile, so none can change in silence. Never says how a change is carried out.

use super::error::Place;
use super::shared::Shared;
use super::tree::{
    Backend, Config, Control, DeepTest, DnsList, DnsblTest, Kernel, Ledger, Limits, Listen, Observe, PregreetTest,
    Replies, Tests,
};

/// The keys that are different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that take effect while the daemon runs.
    pub now: Vec<&'static str>,
    /// Those that take effect when it is started again.
    pub at_restart: Vec<&'static str>,
}

impl Changes {
    /// Whether a key, or a key of a table, takes effect now.
    pub fn has(&self, key: &str) -> bool {
        self.now
            .iter()
            .any(|changed| changed.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }

    /// A key that takes effect now.
    fn now<T: PartialEq>(&mut self, key: &'static str, running: &T, read: &T) {
        if running != read {
            self.now.push(key);
        }
    }

    /// A key that does not: what runs stays in the tree, so that the tree says what runs.
    fn restart<T: PartialEq + Clone>(&mut self, key: &'static str, running: &T, read: &mut T) {
        if running != read {
            self.at_restart.push(key);
            read.clone_from(running);
        }
    }

    /// Everything under `kernel` waits for a restart, after all: there is no kernel half to tell.
    pub(super) fn no_kernel(&mut self, running: &Config, read: &mut Config) {
        let (kernel, now) = self.now.iter().partition(|key| key.starts_with("kernel."));
        self.now = now;
        let kernel: Vec<_> = kernel;
        if !kernel.is_empty() {
            self.at_restart.extend(kernel);
            read.kernel.clone_from(&running.kernel);
        }
    }
}

/// One table: all of its keys, each with the moment from which a change holds.
macro_rules! table {
    ($changes:ident, $running:expr, $read:expr, $Table:ident($prefix:literal): $($key:ident $when:ident),+ $(,)?) => {{
        // Without a rest pattern: whoever adds a key says here when a change of it takes effect.
        let $Table { $($key),+ } = $running;
        $(table!(@key $changes, $when, concat!($prefix, stringify!($key)), $key, $read.$key);)+
    }};
    (@key $changes:ident, now, $name:expr, $running:expr, $read:expr) => { $changes.now($name, $running, &$read) };
    (@key $changes:ident, restart, $name:expr, $running:expr, $read:expr) => {
        $changes.restart($name, $running, &mut $read)
    };
    // A table of its own, or something that is not compared as it stands.
    (@key $changes:ident, apart, $name:expr, $running:expr, $read:expr) => { let _ = $running; };
}

/// Compares, and puts what runs into `read` where a change has to wait.
pub(super) fn between(running: &Config, read: &mut Config) -> Changes {
    let mut changes = Changes::default();
    let it = &mut changes;
    let Tests { tagged, pregreet, dnsbl, pipelining, non_smtp_command, forbidden, bare_newline } = &running.tests;
    table!(it, running, read, Config(""):
        file apart, hostname now, listen apart, backend apart, replies apart, limits apart, tls now, tests apart, ledger apart,
        shared apart, kernel apart, ladder now, permits apart, denies apart, feeds apart, pools apart, link now,
        control apart, observe apart);
    table!(it, &running.listen, read.listen, Listen("listen."):
        mode restart, addresses now, pass_on now, own_networks now, proxy_from now);
    table!(it, &running.backend, read.backend, Backend("backend."): address now, handoff now, after_tests now);
    table!(it, &running.limits, read.limits, Limits("limits."):
        connections now, per_client now, command_time now, session_time now, commands now, tarpit now,
        tarpit_pace now);
    table!(it, &running.replies, read.replies, Replies("replies."):
        banner now, footer now, withhold_ehlo now, soft_bounce now);
    it.now("tests.tagged", tagged, &read.tests.tagged);
    table!(it, pregreet, read.tests.pregreet, PregreetTest("tests.pregreet."): action now, wait now, ttl now,
        pipeconnect_weight now);
    table!(it, dnsbl, read.tests.dnsbl, DnsblTest("tests.dnsbl."):
        action now, threshold now, allow_threshold now, deadline now, min_ttl now, max_ttl now, resolvers now,
        cache now, lists apart);
    it.now("tests.dnsbl.list", &anywhere(&dnsbl.lists), &anywhere(&read.tests.dnsbl.lists));
    table!(it, pipelining, read.tests.pipelining, DeepTest("tests.pipelining."): enable now, action now, ttl now);
    table!(it, non_smtp_command, read.tests.non_smtp_command, DeepTest("tests.non_smtp_command."):
        enable now, action now, ttl now);
    it.now("tests.non_smtp_command.forbidden", forbidden, &read.tests.forbidden);
    table!(it, bare_newline, read.tests.bare_newline, DeepTest("tests.bare_newline."): enable now, action now, ttl now);
    table!(it, &running.ledger, read.ledger, Ledger("ledger."):
        path restart, ipv6_prefix restart, retention now, shared restart);
    table!(it, &running.shared, read.shared, Shared("shared."):
        prefix restart, name restart, manual restart, password_file restart, sentinel_password_file restart,
        ca_file restart);
    table!(it, &running.kernel, read.kernel, Kernel("kernel."):
        interfaces now, xdp now, ports now, pin restart, offenders now, syn_rate now);
    it.now("feed", &running.feeds, &read.feeds);
    it.now("pool", &running.pools, &read.pools);
    it.now("permit", &running.permits, &read.permits);
    let denies = |config: &Config| -> Vec<_> {
        config.denies.iter().map(|deny| (deny.prefix, deny.action, deny.comment.clone())).collect()
    };
    it.now("deny", &denies(running), &denies(read));
    table!(it, &running.control, read.control, Control("control."): socket restart, group now);
    table!(it, &running.observe, read.observe, Observe("observe."): metrics now, log now, program restart);
    changes
}

/// The lists without the places where they stand: a line more above them is no change.
fn anywhere(lists: &[DnsList]) -> Vec<DnsList> {
    let nowhere = || Place { file: "".into(), line: 0, column: 0, key: String::new() };
    let mut lists = lists.to_vec();
    for list in &mut lists {
        list.place = nowhere();
        list.codes.iter_mut().for_each(|code| code.place = nowhere());
        list.errors.iter_mut().for_each(|error| error.place = nowhere());
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        Config::parse(text, "test").unwrap()
    }

    #[test]
    fn what_changed_is_named_key_by_key() {
        let running = read("");
        let mut wanted = read(
            "hostname = \"mx.example.com\"\n[limits]\ncommands = 7\n[tests.pregreet]\nwait = \"3s\"\n\
             [[deny]]\nprefix = \"192.0.2.0/24\"\naction = \"drop\"\n[kernel]\nports = [25, 587]\n",
        );
        let changes = wanted.follow(&running, true);
        let mut now = changes.now.clone();
        now.retain(|key| *key != "hostname");
        assert_eq!(now, ["limits.commands", "tests.pregreet.wait", "kernel.ports", "deny"]);
        assert!(changes.at_restart.is_empty());
        assert!(changes.has("kernel") && changes.has("kernel.ports") && !changes.has("kernel.port"));
    }

    #[test]
    fn what_has_to_wait_for_a_restart_is_named_again_until_there_is_one() {
        let running = read("");
        let text = "[ledger]\npath = \"/var/lib/screener/other.redb\"\n[control]\nsocket = \"/run/other.sock\"\n";
        let mut wanted = read(text);
        let changes = wanted.follow(&running, true);
        assert_eq!((changes.now.len(), &*changes.at_restart), (0, &["ledger.path", "control.socket"][..]));
        assert_eq!(wanted, running, "what runs is what the tree says");
        assert_eq!(read(text).follow(&wanted, true), changes);
    }

    #[test]
    fn a_list_that_only_moved_in_the_file_has_not_changed() {
        let list = "[[tests.dnsbl.list]]\nzone = \"dnsbl.example\"\nweight = 3\ncodes = { \"127.0.0.2\" = 5 }\n";
        let moved = format!("# a remark\n\n{list}");
        assert_eq!(read(&moved).follow(&read(list), true), Changes::default());
        let heavier = list.replace("weight = 3", "weight = 4");
        assert_eq!(read(&heavier).follow(&read(list), true).now, ["tests.dnsbl.list"]);
    }

    #[test]
    fn without_a_kernel_half_its_keys_wait_for_a_restart() {
        let running = read("[kernel]\nxdp = \"off\"\n");
        let mut wanted = read("[kernel]\nxdp = \"native\"\nports = [25, 2525]\n");
        let changes = wanted.follow(&running, false);
        assert_eq!((changes.now.len(), &*changes.at_restart), (0, &["kernel.xdp", "kernel.ports"][..]));
        assert_eq!(wanted.kernel, running.kernel);
    }
}
