//! `screener import-postfix` on a host with a real postscreen: what it writes and says, and the whole way from one to the other.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::cli::{expect, expect_all, run, shell};
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::net::Net;
use screener_tests::postfix::Postfix;
use screener_tests::screener::Screener;

const SOON: Duration = Duration::from_secs(30);

const MAIN: &str = "\
myhostname = mx.example.com
mynetworks = 127.0.0.0/8 [::1]/128
postscreen_access_list = permit_mynetworks cidr:/etc/postfix/access.cidr
postscreen_denylist_action = drop
postscreen_greet_wait = 2s
postscreen_greet_action = enforce
postscreen_pipelining_enable = yes
postscreen_non_smtp_command_enable = yes
postscreen_bare_newline_enable = yes
postscreen_bare_newline_action = enforce
virtual_mailbox_domains = example.com
virtual_mailbox_maps = inline:{ bob@example.com=example.com/bob/ }
";

/// Port 25 is postscreen's.
const BEFORE: &str = "\
smtp inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
";

/// Port 25 is the MTA's own.
const AFTER: &str = "\
smtp inet n - n - - smtpd
  -o syslog_name=postfix/direct
smtpd pass - - n - - smtpd
";

/// Says which recipient is meant, and what is heard.
fn recipient(internet: &Host, source: &str, code: u16) -> Result<()> {
    let source: IpAddr = source.parse()?;
    let mut client = Client::connect(internet, source, SocketAddr::new("192.0.2.10".parse()?, 25))?;
    client.set_patience(SOON);
    client.expect(220)?;
    client.ask("EHLO sender.example.net", 250)?;
    client.ask("MAIL FROM:<a@example.net>", 250)?;
    client.ask("RCPT TO:<bob@example.com>", code)?;
    client.ask("QUIT", 221)?;
    Ok(())
}

#[test]
fn the_whole_way_from_postscreen_and_back() {
    cell::test("the_whole_way_from_postscreen_and_back", || {
        let (mx, internet) = Net::mx_and_internet()?;
        mx.write("/etc/postfix/access.cidr", "198.51.100.99 reject\n")?;
        let mut postfix = Postfix::start(&mx, MAIN, BEFORE)?;
        recipient(&internet, "198.51.100.7", 450)?;
        postfix.wait_for_log(&["PASS NEW", "198.51.100.7"], SOON)?;

        // The page's steps: import, look at it, give port 25 to the MTA, bring the cache over.
        let import = ["import-postfix", "--output", "/etc/screener/screener.toml"];
        expect(&mx, &import, 0, "parameters taken over, 0 left out")?;
        expect(&mx, &["check-config"], 0, "/etc/screener/screener.toml: ok")?;
        let config = mx.read("/etc/screener/screener.toml")?;
        postfix.stop()?;
        let cache = mx.ask("postmap", &["-s", "btree:/var/lib/postfix/postscreen_cache"])?;
        mx.write("/var/tmp/cache", &cache)?;
        let mut postfix = Postfix::start(&mx, MAIN, AFTER)?;
        // What only a test needs: nobody's group, and an interface by name.
        let mut screener = Screener::start(
            &mx,
            &format!("{config}\n[control]\ngroup = \"root\"\n[kernel]\ninterfaces = [\"eth0\"]\n"),
        )?;
        expect(&mx, &["pass", "restore", "/var/tmp/cache"], 0, "1 new")?;

        // Who had passed goes to the MTA; a stranger is put off once, as by postscreen, and the denied stays out.
        recipient(&internet, "198.51.100.7", 250)?;
        recipient(&internet, "198.51.100.8", 450)?;
        recipient(&internet, "198.51.100.8", 250)?;
        expect(
            &mx,
            &["explain", "198.51.100.99"],
            0,
            "Denied by 198.51.100.99/32 from config (/etc/postfix/access.cidr:1)",
        )?;
        screener.wait_for_log("PASS NEW [198.51.100.8]", SOON)?;

        // And back: postscreen takes port 25 again.
        screener.stop()?;
        expect(&mx, &["kernel", "detach"], 0, "")?;
        postfix.stop()?;
        let postfix = Postfix::start(&mx, MAIN, BEFORE)?;
        recipient(&internet, "198.51.100.7", 250)?;
        postfix.wait_for_log(&["PASS OLD", "198.51.100.7"], SOON)?;
        Ok(())
    });
}

#[test]
fn it_says_what_it_leaves_out_and_never_writes_over_a_file() {
    cell::test("it_says_what_it_leaves_out_and_never_writes_over_a_file", || {
        let mx = Net::mx()?;
        expect(&mx, &["import-postfix"], 2, "cannot read /etc/postfix/main.cf")?;
        mx.write(
            "/tmp/postfix/main.cf",
            &format!("{MAIN}postscreen_command_filter = pcre:/x\npostscreen_greet_tll = 1d\n"),
        )?;
        mx.write("/tmp/postfix/master.cf", &format!("{BEFORE}2525 inet n - n - 1 postscreen\n"))?;
        let import = |more: &[&str], code, parts: &[&str]| {
            expect_all(&mx, &[&["import-postfix", "/tmp/postfix/main.cf"], more].concat(), code, parts)
        };
        import(&[], 2, &["several postscreens: name one with --service: smtp, 2525"])?;
        let left = [
            "not taken over: postscreen_command_filter: commands are taken as they come",
            "not taken over: postscreen_greet_tll: this is no parameter of postscreen's that is known here",
            "not taken over: postscreen_access_list: 'cidr:/etc/postfix/access.cidr': cannot read",
        ];
        import(
            &["--service", "smtp"],
            1,
            &[&left[..], &["after_tests = \"defer\"", "wait = \"2s\"  # postscreen_greet_wait"]].concat(),
        )?;
        import(&["--service", "smtp", "--output", "/tmp/ours.toml"], 1, &["3 left out"])?;
        expect(&mx, &["check-config", "--config", "/tmp/ours.toml"], 0, "ok")?;
        ensure!(mx.ask("stat", &["-c", "%a", "/tmp/ours.toml"])?.trim() == "600");
        mx.write("/tmp/ours.toml", "# mine\n")?;
        import(
            &["--service", "2525", "--output", "/tmp/ours.toml"],
            2,
            &["/tmp/ours.toml is there already: --force replaces it"],
        )?;
        ensure!(mx.read("/tmp/ours.toml")? == "# mine\n");
        mx.ask("chmod", &["644", "/tmp/ours.toml"])?;
        import(&["--service", "2525", "--output", "/tmp/ours.toml", "--force"], 1, &["left out"])?;
        ensure!(mx.read("/tmp/ours.toml")?.contains("ports = [2525]"));
        ensure!(mx.ask("stat", &["-c", "%a", "/tmp/ours.toml"])?.trim() == "600", "as readable as the one before");
        ensure!(
            mx.ask("ls", &["/tmp"])?.lines().filter(|name| name.starts_with("ours")).count() == 1,
            "a part is left"
        );
        import(&["--force"], 2, &["--output"])?;

        let (code, said) = run(&mx, &["import-postfix", "/tmp/postfix/main.cf", "--service", "smtp", "--json"])?;
        let shown: serde_json::Value = serde_json::from_str(&said)?;
        ensure!(code == 1 && shown["left_out"].as_array().is_some_and(|left| left.len() == 3), "{said}");
        let wait = shown["taken"]
            .as_array()
            .and_then(|all| all.iter().find(|taken| taken["parameter"] == "postscreen_greet_wait"));
        ensure!(wait.is_some_and(|taken| taken["setting"] == "tests.pregreet.wait = \"2s\""), "{said}");
        // Its own output can be checked without a file.
        shell(
            &mx,
            "screener import-postfix /tmp/postfix/main.cf --service smtp > /tmp/stdout.toml 2>/dev/null || test $? = 1",
        )?;
        expect(&mx, &["check-config", "--config", "/tmp/stdout.toml"], 0, "ok")
    });
}
