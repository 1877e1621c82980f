//! Whole configurations: what is written, what is left out, and that `check-config` takes whatever comes of any.

use proptest::prelude::*;

use super::super::import::Imported;
use super::{MASTER, Shelf, run, run_on};
use crate::config::{AfterTests, Config, TestAction as Action};
use crate::dnsbl::Dnsbl;

fn imported(main: &str) -> Imported {
    checked(&Shelf::postscreen(main))
}

fn checked(shelf: &Shelf) -> Imported {
    let imported = run(shelf, None).unwrap();
    parse(&imported.configuration);
    imported
}

fn parse(text: &str) -> Config {
    let config = Config::parse(text, "screener.toml").unwrap_or_else(|error| panic!("{error}\n{text}"));
    Dnsbl::configured(&config.tests.dnsbl).unwrap_or_else(|error| panic!("{error}\n{text}"));
    config
}

fn why(imported: &Imported, parameter: &str) -> String {
    let found = imported.left_out.iter().find(|left| left.parameter == parameter);
    found.map_or_else(|| panic!("{parameter} is not in {:?}", imported.left_out), |left| left.why.clone())
}

#[test]
fn an_empty_main_cf_gives_what_postscreen_does_by_default() {
    let imported = imported("mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128\n");
    assert!(imported.left_out.is_empty(), "{:?}", imported.left_out);
    let config = parse(&imported.configuration);
    assert_eq!(config.tests.pregreet.action, Action::Ignore);
    assert!(
        ![&config.tests.pipelining, &config.tests.non_smtp_command, &config.tests.bare_newline]
            .iter()
            .any(|test| test.enable)
    );
    assert_eq!(config.replies.banner, "ESMTP Postfix");
    let text = imported.configuration;
    for line in [
        "address = \"unix:/var/spool/postfix/private/smtpd\"  # master.cf: smtpd pass",
        "handoff = \"postfix-pass\"",
        "program = \"postfix/postscreen\"  # syslog_name",
        "enable = false  # postscreen_pipelining_enable",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // What is our default is not written.
    for word in ["wait", "own_networks", "per_client", "addresses", "pass_on", "after_tests", "[tests.dnsbl]", "ttl"] {
        assert!(!text.lines().any(|line| line.starts_with(word)), "{word} in\n{text}");
    }
    assert!(imported.notes.iter().any(|note| note.contains("postmap -s btree:/var/lib/postfix/postscreen_cache")));
}

const FULL: &str = r"
myhostname = mx.example.org
smtpd_banner = $myhostname ESMTP ready
mynetworks = 127.0.0.0/8, 192.0.2.0/28, [2001:db8:1::]/48
postscreen_access_list = permit_mynetworks,
    cidr:/etc/postfix/access.cidr
postscreen_blacklist_action = drop
postscreen_whitelist_interfaces = !192.0.2.110, static:all
postscreen_greet_action = enforce
postscreen_greet_wait = ${stress?{3}:{7}}s
postscreen_greet_ttl = 2d
postscreen_dnsbl_action = drop
postscreen_dnsbl_threshold = 4
postscreen_dnsbl_whitelist_threshold = -2
postscreen_dnsbl_ttl = 4
postscreen_dnsbl_min_ttl = 2h
postscreen_dnsbl_sites = zen.example=127.0.0.[2..11]*3, zen.example=127.0.0.30*4
    s3cret.dq.example=127.0.0.[2..4]*3 s3cret.dq.example*1 other.key9.example wl.example=127.0.[0..255].[1..3]*-2
postscreen_dnsbl_reply_map = texthash:/etc/postfix/names, pcre:/etc/postfix/names.pcre
postscreen_pipelining_enable = yes
postscreen_non_smtp_command_enable = yes
postscreen_non_smtp_command_action = enforce
postscreen_non_smtp_command_ttl = 10d
postscreen_forbidden_commands = CONNECT GET
postscreen_bare_newline_enable = yes
postscreen_command_count_limit = 30
postscreen_command_time_limit = 60s
postscreen_client_connection_count_limit = 10
postscreen_discard_ehlo_keywords = silent-discard, dsn
postscreen_reject_footer = \c. See https://example.org/$client_address
postscreen_cache_map = lmdb:$data_directory/cache
postscreen_cache_retention_time = 2w
postscreen_pre_queue_limit = 400
smtpd_tls_security_level = may
smtpd_tls_cert_file = /etc/ssl/good.pem
smtpd_tls_key_file = /etc/ssl/good.key
";

#[test]
fn everything_that_has_a_counterpart_is_taken_over() {
    let shelf = Shelf::postscreen(FULL)
        .with(
            "/etc/postfix/access.cidr",
            "198.51.100.7 reject\n198.51.100.0/24 permit\n203.0.113.0/24 reject\n192.0.2.3 reject\n",
        )
        .with("/etc/postfix/names", "s3cret.dq.example dq.example\n")
        .with("/etc/postfix/names.pcre", "/^(\\w+)\\.key9\\.example$/ $1.example\n");
    let imported = checked(&shelf);
    assert!(imported.left_out.is_empty(), "{:?}", imported.left_out);
    let expected = "\
hostname = \"mx.example.org\"  # myhostname

[listen]
pass_on = [\"192.0.2.10\", \"2001:db8:25::10\"]  # postscreen_allowlist_interfaces
own_networks = [\"127.0.0.0/8\", \"::1/128\", \"192.0.2.0/28\", \"2001:db8:1::/48\"]  # mynetworks

[backend]
address = \"unix:/var/spool/postfix/private/smtpd\"  # master.cf: smtpd pass
handoff = \"postfix-pass\"  # master.cf: smtpd pass
after_tests = \"defer\"  # as postscreen does; \"relay\" spares senders the second visit

[replies]
banner = \"ESMTP ready\"  # smtpd_banner
footer = '\\c. See https://example.org/$client_address'  # postscreen_reject_footer
withhold_ehlo = [\"DSN\"]  # postscreen_discard_ehlo_keywords

[limits]
per_client = 10  # postscreen_client_connection_count_limit
commands = 30  # postscreen_command_count_limit
command_time = \"60s\"  # postscreen_command_time_limit
connections = 400  # postscreen_pre_queue_limit

[tls]
certificate = \"/etc/ssl/good.pem\"  # smtpd_tls_cert_file, smtpd_tls_key_file
key = \"/etc/ssl/good.key\"  # smtpd_tls_cert_file, smtpd_tls_key_file

[tests.pregreet]
wait = \"7s\"  # postscreen_greet_wait
ttl = \"2d\"  # postscreen_greet_ttl

[tests.dnsbl]
action = \"drop\"  # postscreen_dnsbl_action
threshold = 4  # postscreen_dnsbl_threshold
min_ttl = \"2h\"  # postscreen_dnsbl_min_ttl
max_ttl = \"4h\"  # postscreen_dnsbl_max_ttl
deadline = \"7s\"  # postscreen_greet_wait
sites = [\"zen.example=127.0.0.[2..11]*3\", \"zen.example=127.0.0.30*4\", \"wl.example=127.0.[0..255].[1..3]*-2\"]  # postscreen_dnsbl_sites

[tests.non_smtp_command]
action = \"enforce\"  # postscreen_non_smtp_command_action
ttl = \"10d\"  # postscreen_non_smtp_command_ttl
forbidden = \"CONNECT GET\"  # postscreen_forbidden_commands

[tests.bare_newline]
action = \"ignore\"  # postscreen_bare_newline_action

[ledger]
retention = \"2w\"  # postscreen_cache_retention_time

[observe]
program = \"postfix/postscreen\"  # syslog_name

[[tests.dnsbl.list]]  # postscreen_dnsbl_sites, postscreen_dnsbl_reply_map
zone = \"{key}.key9.example\"
key = \"other\"
weight = 1

[[tests.dnsbl.list]]  # postscreen_dnsbl_sites, postscreen_dnsbl_reply_map
zone = \"{key}.dq.example\"
key = \"s3cret\"
codes = { \"127.0.0.[2..4]\" = 3, \"127.0.0.0/8\" = 1 }

[[permit]]
";
    let (_, text) = imported.configuration.split_once("[kernel].\n").unwrap();
    assert!(text.starts_with(expected), "{text}");
    let config = parse(&imported.configuration);
    let denied: Vec<String> = config.denies.iter().map(|deny| format!("{} {:?}", deny.prefix, deny.action)).collect();
    assert_eq!(denied, ["198.51.100.7/32 Reject", "203.0.113.0/24 Reject"]);
    // A /24 but for one address.
    assert_eq!(config.permits.len(), 8);
    assert!(imported.notes.iter().any(|note| note.contains("under stress it is 3 s there and 2 s here")));
    assert!(!format!("{:?}{:?}", imported.taken, imported.notes).contains("s3cret"));
}

#[test]
fn what_is_not_taken_over_is_said_with_what_to_do() {
    for (main, parameter, part) in [
        ("postscreen_greet_action = maybe", "postscreen_greet_action", "is none of ignore, enforce and drop"),
        ("postscreen_greet_wait = 2x", "postscreen_greet_wait", "write a number and one of s, m, h, d, w"),
        ("postscreen_greet_wait = 90s", "postscreen_greet_wait", "out of range"),
        ("postscreen_dnsbl_sites = a.example*x", "postscreen_dnsbl_sites", "'x' is a weight and no number"),
        ("postscreen_dnsbl_sites = a.example*0", "postscreen_dnsbl_sites", "weighs 0 and decides nothing"),
        ("postscreen_dnsbl_sites = a_b..example", "postscreen_dnsbl_sites", "is no DNS zone"),
        ("postscreen_dnsbl_sites = a.example=foo", "postscreen_dnsbl_sites", "write it as a [[tests.dnsbl.list]]"),
        ("postscreen_dnsbl_reply_map = mysql:/x", "postscreen_dnsbl_reply_map", "write a texthash: table"),
        ("postscreen_upstream_proxy_protocol = haproxy", "postscreen_upstream_proxy_protocol", "listen.proxy_from"),
        ("postscreen_command_filter = pcre:/x", "postscreen_command_filter", "smtpd_command_filter"),
        ("postscreen_reject_footer_maps = pcre:/x", "postscreen_reject_footer_maps", "one footer for all replies"),
        ("postscreen_access_list = mysql:/x", "postscreen_access_list", "write what it says into a cidr: table"),
        ("postscreen_access_list = reject", "postscreen_access_list", "rejects everybody else"),
        (
            "postscreen_allowlist_interfaces = !static:all",
            "postscreen_allowlist_interfaces",
            "set listen.pass_on; now all can",
        ),
        (
            "postscreen_allowlist_interfaces = mail.example.com",
            "postscreen_allowlist_interfaces",
            "set listen.pass_on; now all can",
        ),
        ("mynetworks_style = planet", "mynetworks", "'planet' is no mynetworks_style"),
        ("postscreen_cache_map =", "postscreen_cache_map", "postscreen remembers nobody"),
        ("smtpd_banner = Welcome", "smtpd_banner", "see replies.banner"),
        ("inet_interfaces = no.example.com", "inet_interfaces", "every address is screened, or set listen.addresses"),
        ("inet_interfaces = elsewhere.example.com", "inet_interfaces", "is no name of an address of this host"),
        (
            "smtpd_tls_security_level = may",
            "postscreen_tls_security_level",
            "there is no certificate: STARTTLS leads to the MTA",
        ),
        ("smtpd_tls_security_level = may\nsmtpd_tls_chain_files = /none.pem", "smtpd_tls_chain_files", "set [tls]"),
        ("postscreen_greet_wiat = 3s", "postscreen_greet_wiat", "spelt right"),
        ("postscreen_greet_ttl = ${x", "postscreen_greet_ttl", "Postfix itself would refuse it"),
        ("myhostname = not_a/name", "myhostname", "hostname"),
        ("postscreen_disable_vrfy_command = yes", "postscreen_disable_vrfy_command", "set disable_vrfy_command = yes"),
        ("postscreen_tls_ciphers = high", "postscreen_tls_ciphers", "see docs/tls.md"),
        ("line_length_limit = 4096", "line_length_limit", "2048 bytes"),
    ] {
        let imported = imported(&format!("mynetworks_style = host\n{main}\n"));
        assert!(why(&imported, parameter).contains(part), "{main}: {:?}", imported.left_out);
    }
}

#[test]
fn what_is_said_of_a_table_that_hides_names_does_not_show_them() {
    for (map, table, part) in [
        ("pcre:/names", "/^s3cret\\.dq\\.example$/x dq.example\n", "'pcre:/names': /names:1: this is no /pattern/"),
        ("pcre:/names", "s3cret.dq.example dq.example\n", "/names:1: this is no /pattern/"),
        ("inline:{s3cret.dq.example=dq.example}", "", "'inline:…': a table of this type is not read"),
        ("inline:{{s3cret.dq.example = dq.example}}", "", "'inline:…': a table of this type is not read"),
        ("s3cret.dq.example", "", "'…': a table of this type is not read"),
    ] {
        let main = format!(
            "mynetworks_style = host\npostscreen_dnsbl_sites = a.example\npostscreen_dnsbl_reply_map = {map}\n"
        );
        let imported = checked(&Shelf::postscreen(&main).with("/names", table));
        let said = why(&imported, "postscreen_dnsbl_reply_map");
        assert!(said.contains(part) && said.contains("write such a list as a [[tests.dnsbl.list]]"), "{map}: {said}");
        assert!(!format!("{:?}{:?}", imported.left_out, imported.notes).contains("s3cret"), "{imported:?}");
    }
}

#[test]
fn master_cf_says_where_it_stands_and_overrides() {
    let main = "mynetworks_style = host\npostscreen_greet_wait = 3s\ninet_protocols = ipv4\n";
    let shelf =
        |master: &str| Shelf::default().with("/etc/postfix/main.cf", main).with("/etc/postfix/master.cf", master);
    let two =
        format!("{MASTER}192.0.2.110:2525 inet n - y - 1 postscreen\n  -o postscreen_greet_wait=9s -o {{ x = y }}\n");
    assert!(run(&shelf(&two), None).unwrap_err().contains("name one with --service: smtp, 192.0.2.110:2525"));
    assert!(
        run(&shelf(&two), Some("25"))
            .unwrap_err()
            .contains("no postscreen called '25'; there is smtp, 192.0.2.110:2525")
    );
    let other = run(&shelf(&two), Some("192.0.2.110:2525")).unwrap();
    let config = parse(&other.configuration);
    assert_eq!(config.tests.pregreet.wait.normal.as_secs(), 9);
    assert_eq!((config.listen.addresses, config.kernel.ports), (vec!["192.0.2.110:2525".parse().unwrap()], vec![2525]));
    let config = parse(&run(&shelf(&two), Some("smtp")).unwrap().configuration);
    assert_eq!(config.listen.addresses, ["0.0.0.0:25".parse().unwrap()]);
    assert_eq!(config.tests.pregreet.wait.normal.as_secs(), 3);

    // A name is what it leads to; if that is none of our own, every address is screened.
    let listening = |main: &str| parse(&checked(&Shelf::postscreen(main)).configuration).listen.addresses;
    let named = listening("mynetworks_style = host\ninet_interfaces = $myhostname, 192.0.2.10, localhost\n");
    let expected = ["192.0.2.10:25", "[2001:db8:25::10]:25", "127.0.0.1:25", "[::1]:25"].map(|it| it.parse().unwrap());
    assert_eq!(named, expected);
    let unknown = listening("mynetworks_style = host\ninet_interfaces = no.example.com\n");
    assert_eq!(unknown, Config::default().listen.addresses);

    let none = checked(&shelf("smtp inet n - y - - smtpd\n"));
    assert!(why(&none, "master.cf").contains("there is no postscreen in it"));
    let no_pass = checked(&shelf("smtp inet n - y - 1 postscreen\n"));
    assert!(why(&no_pass, "master.cf").contains("add `smtpd pass - - n - - smtpd`"));
    let missing = checked(&Shelf::default().with("/etc/postfix/main.cf", main));
    assert!(why(&missing, "master.cf").contains("cannot read /etc/postfix/master.cf"));
    assert!(run(&shelf("smtp inet\n"), None).unwrap_err().starts_with("/etc/postfix/master.cf:1: "));
    assert!(run(&Shelf::default(), None).unwrap_err().contains("cannot read /etc/postfix/main.cf"));
}

#[test]
fn a_long_list_has_a_line_for_each_and_what_was_guessed_is_said() {
    let main = "mynetworks_style = host\nsmtpd_banner = $myhostname ESMTP $mail_version\npostscreen_cache_map = proxy:lmdb:/x\n\
                postscreen_dnsbl_sites = one.of.many.lists.example*3 two.of.many.lists.example*2 three.of.many.lists.example*2 \
                four.of.many.lists.example\n";
    let imported = imported(main);
    let lists = "sites = [\n    \"one.of.many.lists.example*3\",\n    \"two.of.many.lists.example*2\",\n";
    assert!(imported.configuration.contains(lists), "{}", imported.configuration);
    let said = |part: &str| imported.notes.iter().any(|note| note.contains(part));
    assert!(said("$mail_version is not set in main.cf") && said("`postmap -s lmdb:/x | "), "{:?}", imported.notes);
    assert!(imported.taken.iter().all(|taken| !taken.setting.contains('\n')));
}

#[test]
fn what_rejects_nearly_everybody_is_said_and_no_deny_covers_this_host() {
    let table =
        "198.51.100.9 permit\n203.0.113.0/24 reject\n192.0.2.0/25 reject\n198.51.100.0/24 reject\n0.0.0.0/0 reject\n";
    let main = "mynetworks_style = host\npostscreen_access_list = permit_mynetworks, cidr:/t\n";
    let imported = checked(&Shelf::postscreen(main).with("/t", table));
    let said = why(&imported, "postscreen_access_list");
    assert!(said.starts_with("/t:5 rejects everybody else"), "{said}");
    let config = parse(&imported.configuration);
    assert!(config.denies.iter().all(|deny| deny.prefix.prefix_len() >= 24), "{:?}", config.denies);
    let denied = |address: &str| {
        let address: std::net::IpAddr = address.parse().unwrap();
        config.denies.iter().any(|deny| deny.prefix.contains(&address))
    };
    assert!(denied("203.0.113.1") && denied("192.0.2.11") && denied("198.51.100.10"));
    // This host's own addresses, its gateway, and who is permitted: a daemon does not start with a deny of those.
    assert!(!denied("192.0.2.10") && !denied("192.0.2.110") && !denied("198.51.100.254") && !denied("198.51.100.9"));
}

#[test]
fn names_and_places_are_what_postfix_makes_of_them() {
    let access = Shelf::default()
        .with("/etc/postfix/main.cf", "mynetworks = $config_directory/networks\npostscreen_access_list = permit_mynetworks, cidr:${config_directory}/access\n")
        .with("/etc/postfix/master.cf", MASTER)
        .with("/etc/postfix/networks", "198.51.100.0/28\n")
        .with("/etc/postfix/access", "203.0.113.0/24 reject\n");
    let config = parse(&checked(&access).configuration);
    assert!(config.listen.own_networks.contains(&"198.51.100.0/28".parse().unwrap()) && config.denies.len() == 1);

    let hostname = |system: &str, main: &str| {
        let shelf = Shelf::postscreen(&format!("mynetworks_style = host\n{main}"));
        let imported = run_on(system, &shelf, None).unwrap();
        parse(&imported.configuration).hostname.to_string()
    };
    assert_eq!(hostname("mx", "mydomain = example.org\n"), "mx.example.org");
    assert_eq!(hostname("mx", ""), "mx.localdomain");
    assert_eq!(hostname("mx.example.net", "mydomain = example.org\nmyhostname = in.$mydomain\n"), "in.example.org");

    // Neither can be made of the other: Postfix does not start with that, and we do not hang on it.
    for main in
        ["myhostname = mx.$mydomain\n", "mydomain = $myhostname\n", "mydomain = $mydomain\nmyhostname = $mydomain\n"]
    {
        let _ = run_on("mx", &Shelf::postscreen(main), None);
    }
}

#[test]
fn the_networks_of_the_interfaces_are_ours_as_mynetworks_style_has_them() {
    let own = |main: &str| {
        let imported = imported(main);
        let networks = parse(&imported.configuration).listen.own_networks;
        networks[Config::default().listen.own_networks.len()..].iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(own("mynetworks_style = subnet\n"), ["192.0.2.0/26", "192.0.2.110/32", "2001:db8:25::/64"]);
    assert_eq!(own("mynetworks_style = class\n"), ["192.0.2.0/24", "2001:db8:25::/64"]);
    assert_eq!(own("mynetworks_style = host\n"), [""; 0]);
    // As long as nobody says how far Postfix has come, it is the old default.
    assert_eq!(own("inet_protocols = ipv4\n"), ["192.0.2.0/26", "192.0.2.110/32"]);
    assert_eq!(own("compatibility_level = 3.6\n"), [""; 0]);
    assert_eq!(own("mynetworks_style = subnet\ninet_interfaces = loopback-only\n"), [""; 0]);
    assert_eq!(
        own("mynetworks_style = subnet\ninet_interfaces = mx.example.com\n"),
        ["192.0.2.0/26", "2001:db8:25::/64"]
    );
}

#[test]
fn an_address_where_no_pass_is_earned_puts_clients_off_as_postscreen_does() {
    let after =
        |main: &str| parse(&imported(&format!("mynetworks_style = host\n{main}")).configuration).backend.after_tests;
    assert_eq!(after(""), AfterTests::Relay);
    assert_eq!(after("postscreen_allowlist_interfaces = !192.0.2.110, static:all\n"), AfterTests::Defer);
    assert_eq!(after("postscreen_bare_newline_enable = yes\n"), AfterTests::Defer);
}

#[test]
fn where_nothing_is_understood_it_is_the_stricter_way() {
    let shelf = Shelf::postscreen(
        "mynetworks = 192.0.2.0/24 mail.example.com 198.51.100.0/24\npostscreen_access_list = mysql:/x permit_mynetworks cidr:/t\n\
         postscreen_dnsbl_sites = wl.example*-2\npostscreen_dnsbl_allowlist_threshold = many\npostscreen_dnsbl_action = maybe\n",
    )
    .with("/t", "203.0.113.0/24 permit\n203.0.112.0/24 reject\n");
    let config = parse(&checked(&shelf).configuration);
    assert_eq!(config.listen.own_networks, Config::default().listen.own_networks);
    assert_eq!((config.permits.len(), config.denies.len()), (0, 1));
    assert_eq!((config.tests.dnsbl.allow_threshold, config.tests.dnsbl.action), (None, Action::Enforce));
}

/// Lines with good and bad values of what is looked at.
fn line() -> impl Strategy<Value = String> {
    let names = proptest::sample::select(vec![
        "postscreen_access_list",
        "postscreen_allowlist_interfaces",
        "postscreen_bare_newline_enable",
        "postscreen_command_count_limit",
        "postscreen_command_time_limit",
        "postscreen_denylist_action",
        "postscreen_discard_ehlo_keywords",
        "postscreen_dnsbl_allowlist_threshold",
        "postscreen_dnsbl_max_ttl",
        "postscreen_dnsbl_min_ttl",
        "postscreen_dnsbl_reply_map",
        "postscreen_dnsbl_sites",
        "postscreen_dnsbl_threshold",
        "postscreen_forbidden_commands",
        "postscreen_greet_banner",
        "postscreen_greet_ttl",
        "postscreen_greet_wait",
        "postscreen_pipelining_action",
        "postscreen_pipelining_enable",
        "postscreen_pipelining_ttl",
        "postscreen_pre_queue_limit",
        "postscreen_reject_footer",
        "inet_interfaces",
        "myhostname",
        "mynetworks",
        "queue_directory",
        "smtpd_banner",
        "smtpd_service_name",
        "smtpd_tls_cert_file",
        "smtpd_tls_security_level",
        "syslog_name",
    ]);
    let values = prop_oneof![
        proptest::sample::select(vec![
            "yes",
            "no",
            "0",
            "1",
            "7s",
            "3d",
            "40d",
            "99w",
            "-2",
            "enforce",
            "drop",
            "",
            "$myhostname",
            "${stress?1:2}",
            "may",
            "static:all",
            "!192.0.2.10, static:all",
            "permit",
            "reject",
            "cidr:/t",
            "permit_mynetworks, cidr:/t",
            "0.0.0.0/0",
            "192.0.2.0/24 [::]/0",
            "zen.example*3 zen.example=127.0.0.2*-5",
            "a.example=127.0.0.[2;4..9]",
            "texthash:/n",
            "/good.pem",
            "\\c \"quoted\" 'text' $client_address",
        ])
        .prop_map(str::to_owned),
        "[ -~é]{0,30}",
    ];
    (names, values).prop_map(|(name, value)| format!("{name} = {value}\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn check_config_takes_whatever_is_written(lines in proptest::collection::vec(line(), 0..12), table in "(([!0-9./]{1,12}|if 10/8|endif) (permit|reject|dunno|x)?\n){0,6}") {
        let shelf = Shelf::postscreen(&lines.concat()).with("/t", &table).with("/n", "zen.example shown.example\n");
        if let Ok(imported) = run(&shelf, None) {
            parse(&imported.configuration);
        }
    }
}
