//! What each user error is told, and that no text makes the parser panic.

mod dns_lists;
mod ladder;

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::feed::DenyAction;
use crate::pass::{Test, TestSet};
use crate::rate::SynRate;

/// The structure of DESIGN section 7, every key, without what this version does not do.
const SAMPLE: &str = r#"
hostname = "mx.example.com"
[listen]
mode = "auto"
addresses = ["0.0.0.0:25", "[::]:25"]
pass_on = []
own_networks = ["127.0.0.0/8", "::1/128"]
proxy_from = []
[backend]
address = "127.0.0.1:10025"
handoff = "proxy-v2"
after_tests = "relay"
[limits]
connections = 20000
per_client = 50
command_time = "300s"
commands = 20
tarpit = 800
[tls]
certificate = ""
key = ""
[tests.pregreet]
action = "enforce"
wait = "6s"
ttl = "1d"
[tests.dnsbl]
action = "enforce"
threshold = 3
allow_threshold = -2
deadline = "6s"
min_ttl = "60s"
max_ttl = "1h"
[[tests.dnsbl.list]]
zone = "zen.spamhaus.org"
weight = 3
codes = { "127.0.0.[2..3]" = 3, "127.0.0.[4..7]" = 4, "127.0.0.[10..11]" = 2, "127.0.0.30" = 5 }
families = ["ipv4", "ipv6"]
[tests.pipelining]
enable = true
action = "enforce"
ttl = "30d"
[tests.non_smtp_command]
enable = true
action = "drop"
ttl = "30d"
[tests.bare_newline]
enable = true
action = "enforce"
ttl = "30d"
[ledger]
path = "/var/lib/screener/ledger.redb"
ipv6_prefix = 64
retention = "7d"
shared = ""
[kernel]
interfaces = ["eth0"]
xdp = "auto"
ports = [25]
pin = "/sys/fs/bpf/screener"
offenders = true
syn_rate = ""
[ladder]
enable = true
tarpit_at = 6
drop_at = 12
half_life = "2h"
first_drop = "1h"
longest_drop = "1d"
prefix_clients = 8
[[permit]]
prefix = "192.0.2.0/24"
comment = "our own relays"
[[deny]]
prefix = "198.51.100.0/24"
action = "reject"
[control]
socket = "/run/screener/control.sock"
group = "screener"
[observe]
metrics = "127.0.0.1:9725"
log = "postscreen"
"#;

/// The message of a text that must be refused.
fn refusal(text: &str) -> String {
    Config::parse(text, "s.toml").expect_err(text).to_string()
}

#[test]
fn the_sample_of_the_design_says_what_it_says() {
    let config = Config::parse(SAMPLE, "s.toml").unwrap();
    assert_eq!(config.hostname.as_str(), "mx.example.com");
    assert_eq!(config.denies[0].action, DenyAction::Reject);
    assert_eq!(config.permits[0].comment, "our own relays");
    assert_eq!(config.tests.enabled().iter().count(), Test::COUNT);
    assert_eq!(config.tests.action(Test::NonSmtpCommand), TestAction::Drop);
    assert_eq!(config.tests.pregreet.wait.at(true), Duration::from_secs(2));
    assert_eq!(config.limits.command_time.at(true), Duration::from_secs(10));
    let list = &config.tests.dnsbl.lists[0];
    let codes: Vec<_> = list.codes.iter().map(|code| (code.filter.as_str(), code.weight)).collect();
    assert_eq!(
        codes,
        [("127.0.0.[2..3]", 3), ("127.0.0.[4..7]", 4), ("127.0.0.[10..11]", 2), ("127.0.0.30", 5)],
        "in the order of the file"
    );
}

#[test]
fn the_sample_without_its_lists_is_what_an_empty_file_means() {
    let defaults = Config::default();
    assert_eq!(Config::parse("", "s.toml").unwrap(), defaults);
    let mut sample = Config::parse(SAMPLE, "s.toml").unwrap();
    sample.hostname = defaults.hostname.clone();
    sample.tests.dnsbl.lists.clear();
    sample.kernel.interfaces.clear();
    sample.permits.clear();
    sample.denies.clear();
    assert_eq!(sample, defaults);
}

#[test]
fn the_daemon_can_be_told_what_to_say_about_a_quiet_default() {
    let notes = Config::default().notes().join("\n");
    assert!(notes.contains("no configuration file"), "{notes}");
    assert!(notes.contains("tests.dnsbl: off"), "{notes}");
}

#[test]
fn a_deny_that_a_permit_covers_is_noted() {
    let config = Config::parse(
        "[[permit]]\nprefix = \"192.0.2.0/24\"\n[[deny]]\nprefix = \"192.0.2.128/25\"\n[[deny]]\nprefix = \"128.0.0.0/1\"\n",
        "s.toml",
    );
    let notes = config.unwrap().notes().join("\n");
    assert!(notes.contains("deny 192.0.2.128/25 never acts: permit 192.0.2.0/24 covers it"), "{notes}");
    assert!(notes.contains("deny 128.0.0.0/1 covers a large part of the Internet"), "{notes}");
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    assert_eq!(
        refusal("[listen]\naddreses = []\n"),
        "s.toml:2:1: listen.addreses: unknown key: did you mean `addresses`? known here: mode, addresses, pass_on, \
         own_networks, proxy_from"
    );
    assert_eq!(
        refusal("\n[[tests.dnsbl.list]]\nzone = \"a.test\"\nwait = 1"),
        "s.toml:4:1: tests.dnsbl.list[0].wait: unknown key: known here: zone, key, weight, codes, families, \
         level, errors, min_ttl, max_ttl, deadline, url, text, test_points"
    );
    let top = refusal("[kernal]\nports = [25]\n");
    assert!(top.starts_with("s.toml:1:2: kernal: unknown key: did you mean `kernel`? known here: hostname,"), "{top}");
}

#[test]
fn a_wrong_type_is_refused_in_the_words_of_the_file() {
    for (text, message) in [
        (
            "limits.commands = \"20\"",
            "s.toml:1:19: limits.commands: wrong type: text in quotes stands here; write a whole number",
        ),
        (
            "[limits]\ncommands = 2.5",
            "s.toml:2:12: limits.commands: wrong type: a number with a fraction stands here; write a whole number",
        ),
        (
            "[tests.pregreet]\nwait = 6",
            "s.toml:2:8: tests.pregreet.wait: wrong type: a whole number stands here; write text in quotes",
        ),
        (
            "[listen]\naddresses = \"0.0.0.0:25\"",
            "s.toml:2:13: listen.addresses: wrong type: text in quotes stands here; write a list, [...]",
        ),
        (
            "[kernel]\noffenders = \"yes\"",
            "s.toml:2:13: kernel.offenders: wrong type: text in quotes stands here; write true or false",
        ),
        ("listen = 5", "s.toml:1:10: listen: wrong type: a whole number stands here; write a table"),
        (
            "[kernel]\nports = [25, \"smtp\"]",
            "s.toml:2:14: kernel.ports[1]: wrong type: text in quotes stands here; write a whole number",
        ),
    ] {
        assert_eq!(refusal(text), message);
    }
}

#[test]
fn a_missing_key_of_an_entry_is_named() {
    assert_eq!(refusal("[[deny]]\naction = \"drop\"\n"), "s.toml:1:1: deny[0]: the key prefix is missing here: add it");
}

#[test]
fn bad_durations_are_refused_all_at_once_and_in_the_order_of_the_file() {
    assert_eq!(
        refusal("[ledger]\nretention = \"week\"\n[tests.pregreet]\nwait = \"6\"\nttl = \"0s\"\n"),
        "s.toml:2:13: ledger.retention: \"week\" is no duration (expected number at 0): write it like \"6s\", \"5m\", \
         \"12h\" or \"30d\"\n\
         s.toml:4:8: tests.pregreet.wait: \"6\" is no duration (time unit needed, for example 6sec or 6ms): write it \
         like \"6s\", \"5m\", \"12h\" or \"30d\"\n\
         s.toml:5:7: tests.pregreet.ttl: \"0s\" is out of range: 1s to 10years"
    );
}

#[test]
fn host_bits_are_refused_with_the_right_prefix() {
    assert_eq!(
        refusal("[[deny]]\nprefix = \"198.51.100.7/24\"\n"),
        "s.toml:2:10: deny[0].prefix: \"198.51.100.7/24\" has bits set behind the prefix: write 198.51.100.0/24, or \
         198.51.100.7 for the one host"
    );
    assert_eq!(
        refusal("[[permit]]\nprefix = \"::ffff:192.0.2.0/120\"\n"),
        "s.toml:2:10: permit[0].prefix: \"::ffff:192.0.2.0/120\" is IPv4 in IPv6's clothes: write 192.0.2.0/24"
    );
    assert_eq!(
        refusal("[listen]\nown_networks = [\"10/8\"]\n"),
        "s.toml:2:17: listen.own_networks[0]: \"10/8\" is no prefix: write it like \"192.0.2.0/24\" or \"2001:db8::/32\""
    );
}

#[test]
fn an_unknown_word_is_refused_with_the_choices() {
    assert_eq!(
        refusal("[tests.dnsbl]\naction = \"reject\"\n"),
        "s.toml:2:10: tests.dnsbl.action: \"reject\" is none of: ignore, enforce, drop, tarpit"
    );
    assert_eq!(
        refusal("[observe]\nprogram = \"my screener[1]\"\n"),
        "s.toml:2:11: observe.program: \"my screener[1]\" is no program's name in a log: at most 48 letters, digits and \
         - _ . /, like \"postfix/postscreen\""
    );
    assert_eq!(
        refusal("[[deny]]\nprefix = \"192.0.2.0/24\"\naction = \"permit\"\n"),
        "s.toml:3:10: deny[0].action: \"permit\" is none of: drop, reject, tag, count"
    );
}

#[test]
fn addresses_are_refused_with_the_right_form() {
    for (text, message) in [
        (
            "addresses = [\"0.0.0.0:25\", \"0.0.0.0:25\"]",
            "listen.addresses[1]: \"0.0.0.0:25\" stands here twice: keep one",
        ),
        ("addresses = [\"::1\"]", "listen.addresses[0]: \"::1\" is no address with a port: add the port: \"[::1]:25\""),
        (
            "addresses = [\"*:25\"]",
            "listen.addresses[0]: \"*:25\" is no address with a port: write it like \"0.0.0.0:25\" or \"[::]:25\"",
        ),
        (
            "addresses = [\"[::ffff:192.0.2.1]:25\"]",
            "listen.addresses[0]: \"[::ffff:192.0.2.1]:25\" is IPv4 in IPv6's clothes: write \"192.0.2.1:25\"",
        ),
        ("addresses = []", "listen.addresses: empty: name at least one address, like \"0.0.0.0:25\""),
        (
            "addresses = [\"192.0.2.1:25\"]\npass_on = [\"192.0.2.2\"]",
            "listen.pass_on[0]: no client connects to this address: it is not one of listen.addresses",
        ),
        (
            "addresses = [\"192.0.2.1:2525\"]",
            "listen.addresses: listen.addresses has 192.0.2.1:2525, but port 2525 is not one of kernel.ports: add it",
        ),
    ] {
        let refusal = refusal(&format!("[listen]\n{text}\n"));
        assert!(refusal.ends_with(message) && refusal.starts_with("s.toml:"), "{refusal}");
    }
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    for (text, message) in [
        (
            "tests.dnsbl.threshold = 0",
            "s.toml:1:25: tests.dnsbl.threshold: 0 is out of range: 1 to 1000: a client without any listing must not fail",
        ),
        (
            "tests.dnsbl.allow_threshold = 1",
            "s.toml:1:31: tests.dnsbl.allow_threshold: 1 is out of range: -1000 to 0; 0 excuses nobody",
        ),
        ("limits.connections = 0", "s.toml:1:22: limits.connections: 0 is out of range: 1 to 1000000"),
        (
            "ledger.ipv6_prefix = 24",
            "s.toml:1:22: ledger.ipv6_prefix: 24 is out of range: 32 to 128: 64 is one customer's network, 128 one address",
        ),
        ("kernel.ports = [70000]", "s.toml:1:17: kernel.ports[0]: 70000 is out of range: 1 to 65535"),
        ("limits.tarpit = 99999999999999999999", "s.toml:1:17: limits.tarpit: out of range: "),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with(message), "{refusal}");
    }
    assert_eq!(
        refusal("[[tests.dnsbl.list]]\nzone = \"bl.test\"\nweight = 0\n"),
        "s.toml:3:10: tests.dnsbl.list[0].weight: a weight of 0 counts nothing: remove the list or give it a weight"
    );
}

#[test]
fn min_ttl_above_max_ttl_points_at_the_one_that_is_written() {
    assert_eq!(
        refusal("[tests.dnsbl]\nmin_ttl = \"2h\"\n"),
        "s.toml:2:11: tests.dnsbl.min_ttl: min_ttl (2h) is longer than max_ttl (1h): swap or change them"
    );
    assert_eq!(
        refusal("[tests.dnsbl]\nmax_ttl = \"5s\"\n"),
        "s.toml:2:11: tests.dnsbl.max_ttl: min_ttl (1m) is longer than max_ttl (5s): swap or change them"
    );
}

#[test]
fn a_proxy_that_the_kernel_would_give_to_the_mta_is_refused_unless_the_daemon_stands_in_front() {
    let proxies = "[listen]\nproxy_from = [\"192.0.2.128/25\", \"127.0.0.1\"]\n";
    assert_eq!(
        refusal(proxies),
        "s.toml:2:33: listen.proxy_from[1]: 127.0.0.1/32 and 127.0.0.0/8 of listen.own_networks meet: in steer mode the kernel \
         gives what is permitted to the MTA, which expects no PROXY header; take them apart, or set listen.mode = \"front\""
    );
    let permit = "[[permit]]\nprefix = \"192.0.2.200\"\n";
    let permitted = refusal(&proxies.replace(", \"127.0.0.1\"", "").replace("[listen]", &format!("{permit}[listen]")));
    assert!(
        permitted.starts_with("s.toml:4:15: listen.proxy_from[0]: 192.0.2.128/25 and 192.0.2.200/32 of [[permit]]")
    );
    let front = Config::parse(&format!("{permit}{proxies}mode = \"front\"\n"), "s.toml").unwrap();
    assert!(front.listen.is_proxy("192.0.2.129".parse().unwrap()));
    assert!(!front.listen.is_proxy("192.0.2.127".parse().unwrap()));
    assert!(front.listen.meets_proxy("192.0.0.0/16".parse().unwrap()));
}

#[test]
fn bad_syntax_is_refused_with_its_place() {
    let refusal = refusal("[listen]\nmode = auto\n");
    assert!(refusal.starts_with("s.toml:2:8: "), "{refusal}");
    assert!(refusal.contains("not TOML: string values must be quoted"), "{refusal}");
    let twice = self::refusal("[listen]\nmode = \"auto\"\nmode = \"steer\"\n");
    assert_eq!(twice, "s.toml:3:1: the key `mode` stands here a second time: keep one");
}

#[test]
fn a_key_of_a_dns_list_is_never_shown() {
    let text = "[[tests.dnsbl.list]]\nzone = \"{key}.zen.dq.test\"\nkey = \"hunter2\"\n";
    let config = Config::parse(text, "s.toml").unwrap();
    let zone = &config.tests.dnsbl.lists[0].zone;
    assert_eq!(zone.query_name(), "hunter2.zen.dq.test");
    assert_eq!(zone.label(), "zen.dq.test");
    assert!(!format!("{config:?} {zone}").contains("hunter2"));

    for (text, message) in [
        (
            "zone = \"zen.test\"\nkey = \"hunter2\"",
            "there is a key, but \"zen.test\" has no place for it: write {key} there",
        ),
        ("zone = \"{key}.zen.test\"", "\"{key}.zen.test\" wants a key: add key = \"…\" to this list"),
        ("zone = \"{key}.zen.test\"\nkey = \"hunter2 \"", "s.toml:3:7: tests.dnsbl.list[0].key: this cannot be a key"),
        ("zone = \"{key}.zen.test\"\nkey = { hunter2 = 1 }", "wrong type"),
        ("zone = \"{key}.zen.test\"\nkey = \"hunter2", "not TOML"),
    ] {
        let refusal = refusal(&format!("[[tests.dnsbl.list]]\n{text}\n"));
        assert!(refusal.contains(message), "{refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn a_list_or_a_prefix_that_stands_twice_is_refused() {
    assert_eq!(
        refusal("[[tests.dnsbl.list]]\nzone = \"bl.test\"\n[[tests.dnsbl.list]]\nzone = \"BL.test.\"\n"),
        "s.toml:4:8: tests.dnsbl.list[1].zone: the list bl.test stands here twice: put its weights into one `codes` \
         table; the first is in line 2"
    );
    assert_eq!(
        refusal("[[deny]]\nprefix = \"192.0.2.0/24\"\n[[deny]]\nprefix = \"192.0.2.0/24\"\naction = \"tag\"\n"),
        "s.toml:4:10: deny[1].prefix: 192.0.2.0/24 is denied twice: keep one; the first is in line 2"
    );
}

#[test]
fn an_answer_filter_that_cannot_be_one_is_refused_and_others_keep_their_place() {
    let refusal = refusal("[[tests.dnsbl.list]]\nzone = \"bl.test\"\ncodes = { \"any\" = 1 }\n");
    assert_eq!(
        refusal,
        "s.toml:3:11: tests.dnsbl.list[0].codes.any: \"any\" is no answer of a DNS list: write it like \"127.0.0.2\" or \
         \"127.0.0.[4..7]\""
    );
    let config = Config::parse(SAMPLE, "s.toml").unwrap();
    let later = ConfigError::at(&config.tests.dnsbl.lists[0].codes[1].place, "the range is empty").to_string();
    let line = SAMPLE.lines().position(|line| line.starts_with("codes")).unwrap() + 1;
    assert_eq!(later, format!("s.toml:{line}:33: tests.dnsbl.list[0].codes.\"127.0.0.[4..7]\": the range is empty"));
}

#[test]
fn a_backend_on_the_screened_port_is_refused() {
    for address in ["127.0.0.1:25", "[::1]:25"] {
        let refusal = refusal(&format!("[backend]\naddress = \"{address}\"\n"));
        assert!(refusal.contains("give the MTA a second port for us"), "{refusal}");
    }
    assert!(Config::parse("[backend]\naddress = \"192.0.2.9:25\"\n", "s.toml").is_ok(), "an MTA on another host");
}

#[test]
fn backends_have_three_forms() {
    let parse = |text: &str| text.parse::<BackendAddress>();
    assert_eq!(parse("[::1]:25").unwrap().to_string(), "[::1]:25");
    assert_eq!(parse("mta.example:2525").unwrap(), BackendAddress::Tcp { host: "mta.example".into(), port: 2525 });
    assert_eq!(parse("unix:/run/mta.sock").unwrap(), BackendAddress::Unix("/run/mta.sock".into()));
    for bad in ["", "mta", "mta:0", ":25", "127.0.0.1.5:25", "unix:run/mta.sock", "[::1]", "a b:25"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert!(parse(&format!("unix:/{}", "a".repeat(107))).unwrap_err().contains("at most 107 bytes"));
}

#[test]
fn names_of_interfaces_and_rates_are_checked() {
    for bad in ["", "a/b", "a b", "0123456789abcdef", ".."] {
        assert!(bad.parse::<InterfaceName>().is_err(), "{bad}");
    }
    assert_eq!("20/s burst 40".parse::<SynRate>().unwrap(), SynRate { per_second: 20, burst: 40 });
    assert_eq!("5/s".parse::<SynRate>().unwrap(), SynRate { per_second: 5, burst: 5 });
    for bad in ["", "20", "0/s", "20/s burst", "20/s burst 0", "-1/s", "20/m"] {
        assert!(bad.parse::<SynRate>().is_err(), "{bad}");
    }
}

#[test]
fn a_pass_is_earned_where_the_configuration_says() {
    let config = Config::parse("[listen]\npass_on = [\"192.0.2.1\", \"[2001:db8::1]:25\"]\n", "s.toml").unwrap();
    for (local, earns) in
        [("192.0.2.1:25", true), ("192.0.2.2:25", false), ("[2001:db8::1]:25", true), ("[::ffff:192.0.2.1]:25", true)]
    {
        assert_eq!(config.listen.earns_pass(local.parse().unwrap()), earns, "{local}");
    }
    assert!(Config::default().listen.earns_pass("192.0.2.2:25".parse().unwrap()));
}

#[test]
fn tests_are_off_without_a_wait_a_list_or_enable() {
    let config = Config::parse("tests.pregreet.wait = \"0s\"\ntests.pipelining.enable = false\n", "s.toml").unwrap();
    let expected: TestSet = [Test::NonSmtpCommand, Test::BareNewline].into_iter().collect();
    assert_eq!(config.tests.enabled(), expected);
}

#[test]
fn a_file_that_is_missing_or_not_text_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.toml");
    let error = Config::load(&path).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{}: cannot read the configuration: No such file or directory (os error 2)", path.display())
    );
    std::fs::write(&path, b"# one\nhostname = \"\xff\"\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.ends_with("line 2 is not UTF-8"), "{error}");
    std::fs::write(&path, "hostname = \"mx.example.com\"\n").unwrap();
    assert_eq!(Config::load(&path).unwrap().file.as_deref(), Some(path.as_path()));
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for text in ["[".repeat(100_000), "a.".repeat(100_000), "a=[".repeat(50_000), "a={b=".repeat(50_000)] {
        assert!(Config::parse(&text, "s.toml").is_err());
        let mut closed = "x = ".to_owned();
        let _ = write!(closed, "{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(Config::parse(&closed, "s.toml").is_err());
    }
    let dotted = format!("{}a = 1\n", "a.".repeat(20_000));
    assert!(Config::parse(&dotted, "s.toml").is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        let _ = Config::parse(&text, "s.toml");
    }

    #[test]
    fn no_change_to_a_good_file_makes_it_panic(at in 0..SAMPLE.len(), cut in 0usize..20, put in "[\\PC\n]{0,8}") {
        let mut text = SAMPLE.to_owned();
        text.replace_range(at..(at + cut).min(text.len()), &put);
        if let Err(error) = Config::parse(&text, "s.toml") {
            prop_assert!(error.to_string().starts_with("s.toml:"), "{error}");
        }
    }
}

#[test]
fn a_descriptor_needs_a_unix_socket() {
    let pass = "[backend]\nhandoff = \"postfix-pass\"\n";
    let tcp = "address = \"127.0.0.1:10025\"\n";
    for (text, place) in [(pass.to_owned(), "2:11: backend.handoff"), (format!("{pass}{tcp}"), "3:11: backend.address")]
    {
        let refusal = refusal(&text);
        assert!(refusal.starts_with(&format!("s.toml:{place}: \"postfix-pass\" passes descriptors")), "{refusal}");
        assert!(refusal.contains("unix:/var/spool/postfix/private/smtpd"), "{refusal}");
    }
    Config::parse(&format!("{pass}address = \"unix:/var/spool/postfix/private/smtpd\"\n"), "s.toml").unwrap();
}

#[test]
fn a_handoff_that_hides_the_client_is_warned_about() {
    let config = Config::parse("backend.handoff = \"none\"", "s.toml").unwrap();
    assert!(config.notes().iter().any(|note| note.contains("open relay")), "{:?}", config.notes());
    assert!(!Config::default().notes().iter().any(|note| note.contains("open relay")));
}

#[test]
fn a_dns_list_has_what_its_section_says_unless_it_says_otherwise() {
    let text = "[tests.dnsbl]\ndeadline = \"4s\"\nmax_ttl = \"2h\"\nresolvers = [\"127.0.0.1:53\"]\n\
                sites = [\"wl.test*-2\"]\n[[tests.dnsbl.list]]\nzone = \"bl.test\"\nlevel = \"count\"\nmax_ttl = \"10m\"\n";
    let dnsbl = Config::parse(text, "s.toml").unwrap().tests.dnsbl;
    assert_eq!((dnsbl.resolvers.len(), dnsbl.cache), (1, 500_000));
    let [bl, wl] = &dnsbl.lists[..] else { panic!("two lists") };
    assert_eq!((bl.deadline, bl.max_ttl, bl.min_ttl), (dnsbl.deadline, Duration::from_secs(600), dnsbl.min_ttl));
    assert_eq!((bl.level, bl.text, bl.test_points), (ListLevel::Count, true, true));
    assert_eq!((wl.weight, wl.max_ttl, wl.level), (-2, Duration::from_secs(7200), ListLevel::Score));

    for (line, message) in [
        ("deadline = \"7s\"", "longer than tests.dnsbl.deadline (6s), after which nobody waits"),
        ("min_ttl = \"2h\"", "min_ttl (2h) is longer than max_ttl (1h)"),
        ("url = \"bl.test/{address}\"", "is no URL to show"),
        ("url = \"https://bl.test/{ip}\"", "is no URL to show"),
        ("level = \"on\"", "\"on\" is none of: score, count, off"),
        ("errors = [\"spam\"]", "\"spam\" is no answer of a DNS list"),
    ] {
        let refusal = refusal(&format!("[[tests.dnsbl.list]]\nzone = \"bl.test\"\n{line}\n"));
        assert!(refusal.starts_with("s.toml:3:") && refusal.contains(message), "{line}: {refusal}");
    }
    let twice = refusal("[tests.dnsbl]\nsites = [\"bl.test\"]\n[[tests.dnsbl.list]]\nzone = \"bl.test\"\n");
    assert!(twice.contains("the list bl.test stands here twice"), "{twice}");
    assert!(refusal("[tests.dnsbl]\nresolvers = [\"127.0.0.1\"]\n").contains("add the port"));
}

#[test]
fn lists_that_cannot_matter_are_noted() {
    let text = "[tests.dnsbl]\nsites = [\"a.test*2, c.test=127.0.0.1*-2\"]\n[[tests.dnsbl.list]]\nzone = \"b.test\"\nweight = 5\nlevel = \"count\"\n";
    let notes = Config::parse(text, "s.toml").unwrap().notes().join("\n");
    assert!(notes.contains("nobody can fail: all lists together reach 2, the threshold is 3"), "{notes}");
    assert!(notes.contains("b.test is counted and not scored"), "{notes}");
    assert!(notes.contains("c.test: 127.0.0.1 counts nothing"), "{notes}");
    assert!(!Config::parse(SAMPLE, "s.toml").unwrap().notes().join("\n").contains("tests.dnsbl"));
}

#[test]
fn what_is_said_for_the_mta_must_be_sayable() {
    for (text, place, message) in [
        ("replies.banner = \"Grüße\"", "1:18", "only printable ASCII can stand in a greeting, not 'ü'"),
        (
            "replies.footer = '$recipient'",
            "1:18",
            "$recipient is no macro: use $client_address, $client_port, $localtime",
        ),
        ("replies.withhold_ehlo = [\"8BIT MIME\"]", "1:26", "is no EHLO keyword: write it like \"SIZE\""),
        ("replies.withhold_ehlo = [\"dsn\", \"DSN\"]", "1:33", "stands here twice"),
        ("tests.non_smtp_command.forbidden = 'hash:/etc/x'", "1:36", "only words, regexp:{{/…/ text}}"),
        ("tests.tagged = \"drop\"", "1:16", "\"drop\" is none of: screen, tarpit"),
        ("limits.session_time = \"1m\"", "1:23", "out of range: 2m to 1h"),
        ("limits.tarpit_pace = \"1ms\"", "1:22", "out of range: 10ms to 1m"),
        ("tests.pregreet.pipeconnect_weight = -1", "1:37", "-1 is out of range: 0 to 1000"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with(&format!("s.toml:{place}: ")) && refusal.contains(message), "{text}: {refusal}");
    }
    let text = "[replies]\nbanner = \"ESMTP Postfix\"\nfooter = '\\c. Call us.'\nwithhold_ehlo = [\"dsn\"]\n";
    let replies = Config::parse(text, "s.toml").unwrap().replies;
    assert_eq!((replies.banner.as_str(), replies.withhold_ehlo), ("ESMTP Postfix", vec!["DSN".to_owned()]));
    assert!(!replies.footer.is_empty() && !replies.soft_bounce);
}
