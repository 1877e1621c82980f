//! The installed Postfix says of the same `main.cf` what we say.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::super::Parameters;

/// Parameters that are asked for, set or not.
const ASKED: [&str; 24] = [
    "mydomain",
    "myhostname",
    "mynetworks_style",
    "postscreen_access_list",
    "postscreen_allowlist_interfaces",
    "postscreen_cache_map",
    "postscreen_client_connection_count_limit",
    "postscreen_command_time_limit",
    "postscreen_denylist_action",
    "postscreen_dnsbl_allowlist_threshold",
    "postscreen_dnsbl_max_ttl",
    "postscreen_dnsbl_sites",
    "postscreen_forbidden_commands",
    "postscreen_greet_banner",
    "postscreen_greet_wait",
    "postscreen_pre_queue_limit",
    "postscreen_tls_security_level",
    "respectful_logging",
    "smtpd_banner",
    "smtpd_tls_eckey_file",
    "smtpd_tls_key_file",
    "tlsproxy_tls_cert_file",
    "relayhost",
    "smtpd_milters",
];

const TRICKY: [&str; 16] = [
    "",
    "relayhost = $smtpd_milters\nsmtpd_milters = a$$b ${z}c\n",
    "relayhost = ${smtpd_milters?yes:no} ${smtpd_milters:none}\nsmtpd_milters = 1\n",
    "relayhost = ${smtpd_milters?yes} ${smtpd_milters:none}\nsmtpd_milters =\n",
    "relayhost = ${smtpd_milters?{yes}:{no}} ${z?{yes}:{no}} ${ smtpd_milters ? { sp aced } : {other} }\nsmtpd_milters = 1\n",
    "relayhost = ${smtpd_milters?a ${z:deep {b} $smtpd_milters}}\nsmtpd_milters = 1\n",
    "relayhost = $(smtpd_milters)$(smtpd_milters?one)${smtpd_milters:two}\nsmtpd_milters = 1\n",
    "relayhost = ${{$smtpd_milters} == {1} ? {equal} : {other}} ${{$smtpd_milters} > {0}} ${{9} < {10}?{n}} ${{a} < {b}?{s}} ${{1}!={2}:{no}}\nsmtpd_milters = 1\n",
    "compatibility_level = 3.10\nrelayhost = ${{$compatibility_level} <level {3.9} ? {old} : {new}} ${{3.6} >=level {3.6} ? {1}}\n",
    "postscreen_whitelist_interfaces = !192.0.2.1, static:all\npostscreen_blacklist_action = drop\n\
     postscreen_dnsbl_whitelist_threshold = -3\npostscreen_dnsbl_ttl = 2\n",
    "stress = yes\n",
    "postscreen_greet_wait = ${stress?{1}:{3}}s\nsmtpd_client_connection_count_limit = 7\ndefault_process_limit = 42\n",
    "myhostname = mail.example.org\nmail_name = Mailer\nsmtpd_banner = $myhostname $mail_name of $mydomain\n",
    "# comment\npostscreen_dnsbl_sites =\n  zen.example*3,\n# inside\n\n  bl.example=127.0.0.[2;4..8]*2\n\twl.example*-2\n",
    "smtpd_tls_cert_file = /a/cert\nsmtpd_tls_eccert_file = /a/ec\nsmtpd_tls_security_level = may\n",
    "data_directory = /var/lib/other\nrelayhost = $data_directory/$unknown/${unknown2:-}\n smtpd_milters = goes on\nsmtpd_milters=$relayhost\nx2 = 1\n",
];

#[test]
fn values_are_what_postconf_says_they_are() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("master.cf"), super::MASTER).unwrap();
    for main in TRICKY {
        // Whatever the machine is called.
        let main =
            if main.contains("myhostname") { main.to_owned() } else { format!("{main}myhostname = mx.example.com\n") };
        // A file that has just been written is not believed: Postfix waits for somebody to finish it.
        let mut file = std::fs::File::create(directory.path().join("main.cf")).unwrap();
        file.write_all(main.as_bytes()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        let ours = Parameters::read(&main, "main.cf", "mx.example.com").unwrap();
        let mut postconf = Command::new("postconf");
        postconf.arg("-c").arg(directory.path()).arg("-x").args(ASKED);
        let said = postconf.output().expect("Postfix is not installed: run cargo xtask setup");
        let said = String::from_utf8(said.stdout).unwrap();
        for name in ASKED {
            let theirs = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" ="));
            let theirs = theirs.unwrap_or_else(|| panic!("{name} is not in: {said}"));
            // postconf writes one blank wherever there is any.
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words(&ours.value(name).unwrap()), words(theirs), "{name} of:\n{main}");
        }
    }
}
