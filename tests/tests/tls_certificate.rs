//! The certificate of the daemon in its life: renewed, damaged, mended, expiring; and what the operator is told.

use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::certificate::{Certificate, replace};
use screener_tests::cli::{expect, run};
use screener_tests::client::Client;
use screener_tests::mta::Mta;
use screener_tests::net::Net;
use screener_tests::screener::{Screener, USUAL};
use screener_tests::tls::{PLACE, Rig, SECTION, mail};

const SOON: Duration = Duration::from_secs(25);
const KEY: &str = "/etc/screener/tls/key.pem";

/// The greeting is none of the subject.
const NO_WAIT: &str = "[kernel]\ninterfaces = [\"eth0\"]\n[control]\ngroup = \"root\"\n";

#[test]
fn a_renewed_certificate_is_shown_to_the_next_client_and_sessions_keep_theirs() {
    cell::test("a_renewed_certificate_is_shown_to_the_next_client_and_sessions_keep_theirs", || {
        let mut rig = Rig::new()?;
        let mut held = rig.under_tls("198.51.100.60")?;
        held.ask("EHLO sender.example.net", 250)?;
        let renewed = Certificate::good_for("mx2.example.com", 60)?;
        renewed.install(&rig.mx, PLACE)?;
        rig.screener.wait_for_log("STARTTLS with the certificate for mx2.example.com", SOON)?;
        let mut next = rig.before_handshake("198.51.100.61")?;
        next.start_tls(&renewed)?;
        mail(&mut next, "new")?;
        mail(&mut held, "old")?;
        let tls = rig.screener.json(&["status", "--json"])?["tls"].clone();
        ensure!(tls["names"][0] == "mx2.example.com" && tls["days_left"] == 60, "{tls}");
        let shown = rig.screener.tell(&["status"])?;
        ensure!(shown.contains("TLS: mx2.example.com, until ") && shown.contains("(60 days left)"), "{shown}");
        ensure!(rig.metrics()?.contains("screener_tls_certificate_not_after_seconds "));
        Ok(())
    });
}

#[test]
fn a_bad_new_pair_is_refused_loudly_and_the_old_one_serves_until_it_is_mended() {
    cell::test("a_bad_new_pair_is_refused_loudly_and_the_old_one_serves_until_it_is_mended", || {
        let mut rig = Rig::new()?;
        let stranger = Certificate::new("mx.example.com")?;
        replace(&rig.mx, KEY, stranger.key())?;
        rig.screener
            .wait_for_degraded("does not belong to the first certificate in /etc/screener/tls/cert.pem", true)?;
        rig.screener.wait_for_log("warning: the certificate of [tls] is refused: the key in", SOON)?;
        ensure!(rig.metrics()?.contains("screener_degraded{what=\"tls\"} 1"), "not in the metrics");
        mail(&mut rig.under_tls("198.51.100.62")?, "the old one")?;
        let (code, said) = run(&rig.mx, &["doctor"])?;
        ensure!(code == 1 && said.contains("problem  certificate: the key in"), "{said}");
        expect(&rig.mx, &["check-config"], 2, "does not belong to the first certificate")?;
        replace(&rig.mx, KEY, "no key")?;
        rig.screener.wait_for_degraded("key.pem holds no private key", true)?;
        replace(&rig.mx, KEY, rig.certificate.key())?;
        rig.screener.wait_for_degraded("[tls]", false)?;
        mail(&mut rig.under_tls("198.51.100.63")?, "mended")
    });
}

#[test]
fn without_a_good_certificate_the_daemon_starts_all_the_same_and_takes_one_that_comes() {
    cell::test("without_a_good_certificate_the_daemon_starts_all_the_same_and_takes_one_that_comes", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &format!("{USUAL}{SECTION}"))?;
        screener.wait_for_degraded("STARTTLS is left to the MTA until there is a good one", true)?;
        screener.wait_for_log("cert.pem cannot be read: ", SOON)?;
        let certificate = Certificate::new("mx.example.com")?;
        let mut rig = Rig { mx, internet, mta, screener, certificate };
        let mut plain = Client::connect(&rig.internet, "198.51.100.64".parse()?, rig.server()?)?;
        plain.expect(220)?;
        let offer = plain.ask("EHLO sender.example.net", 250)?;
        ensure!(!offer.contains("STARTTLS"), "nobody has a certificate: {}", offer.text());
        ensure!(rig.screener.tell(&["status"])?.contains("TLS: no certificate, /etc/screener/tls/cert.pem is refused"));
        rig.certificate.install(&rig.mx, PLACE)?;
        rig.screener.wait_for_log("STARTTLS with the certificate for mx.example.com", SOON)?;
        rig.screener.wait_for_degraded("[tls]", false)?;
        mail(&mut rig.under_tls("198.51.100.65")?, "at last")
    });
}

#[test]
fn a_certificate_near_its_end_is_warned_of() {
    cell::test("a_certificate_near_its_end_is_warned_of", || {
        let mut rig = Rig::new()?;
        Certificate::good_for("mx.example.com", 3)?.install(&rig.mx, PLACE)?;
        rig.screener.wait_for_degraded("in 3 days, and has not been renewed", true)?;
        rig.screener.wait_for_log("warning: the certificate expires on", SOON)?;
        ensure!(rig.metrics()?.contains("screener_degraded{what=\"tls_expiry\"} 1"), "not in the metrics");
        let (_, said) = run(&rig.mx, &["doctor"])?;
        ensure!(said.contains("warning  certificate: mx.example.com: the certificate expires on"), "{said}");
        expect(&rig.mx, &["check-config"], 0, "note: tls.certificate: the certificate expires on")?;
        // One that has expired already is no improvement.
        Certificate::good_for("mx.example.com", -2)?.install(&rig.mx, PLACE)?;
        rig.screener.wait_for_degraded("the one in use is still good", true)
    });
}

#[test]
fn doctor_knows_who_has_tls_and_who_may_read_the_key() {
    cell::test("doctor_knows_who_has_tls_and_who_may_read_the_key", || {
        let rig = Rig::new()?;
        rig.mx.ask("chmod", &["644", KEY])?;
        let (_, said) = run(&rig.mx, &["doctor"])?;
        for line in [
            "ok       certificate: mx.example.com, good until ",
            "warning  key: everybody on this host may read /etc/screener/tls/key.pem: chmod o-rwx",
            "warning  TLS at port 25: the MTA offers none to clients that it serves directly",
        ] {
            ensure!(said.contains(line), "{line:?} in {said}");
        }
        Certificate::new("other.example.com")?.install(&rig.mx, PLACE)?;
        let (_, said) = run(&rig.mx, &["doctor"])?;
        ensure!(said.contains("it is good for other.example.com, and this host calls itself mx.example.com"), "{said}");
        rig.mx.write("/etc/screener/plain.toml", &format!("hostname = \"mx.example.com\"\n{NO_WAIT}"))?;
        let (_, said) = run(&rig.mx, &["doctor", "--config", "/etc/screener/plain.toml"])?;
        ensure!(said.contains("warning  TLS: nobody offers STARTTLS"), "{said}");
        Ok(())
    });
}

#[test]
fn half_a_section_and_a_path_that_is_none_are_refused_where_they_stand() {
    cell::test("half_a_section_and_a_path_that_is_none_are_refused_where_they_stand", || -> Result<()> {
        let mx = Net::mx()?;
        for (text, complaint) in [
            (
                "[tls]\ncertificate = \"/a\"\n",
                "screener.toml:2:15: tls.certificate: a certificate needs its key: set tls.key",
            ),
            ("[tls]\nkey = \"/a\"\n", "screener.toml:2:7: tls.key: a key needs its certificate: set tls.certificate"),
            ("[tls]\ncertificate = \"a\"\nkey = \"/b\"\n", "screener.toml:2:15: tls.certificate: "),
        ] {
            mx.write("/etc/screener/screener.toml", text)?;
            expect(&mx, &["check-config"], 2, complaint)?;
        }
        mx.write("/etc/screener/screener.toml", SECTION)?;
        expect(&mx, &["check-config"], 2, "[tls]: /etc/screener/tls/cert.pem cannot be read: ")
    });
}

#[test]
fn a_reload_reads_the_certificate_at_once_and_refuses_other_files_that_are_bad() {
    cell::test("a_reload_reads_the_certificate_at_once_and_refuses_other_files_that_are_bad", || {
        let mut rig = Rig::new()?;
        let mut held = rig.under_tls("198.51.100.66")?;
        held.ask("EHLO sender.example.net", 250)?;
        let renewed = Certificate::new("mx3.example.com")?;
        renewed.install(&rig.mx, PLACE)?;
        rig.screener.tell(&["reload"])?;
        ensure!(rig.screener.json(&["status", "--json"])?["tls"]["names"][0] == "mx3.example.com", "not at once");
        rig.screener.wait_for_log("STARTTLS with the certificate for mx3.example.com", SOON)?;
        // The same files, now bad: the rest of the configuration is taken, the certificate stays, and the answer says so.
        replace(&rig.mx, KEY, Certificate::new("mx3.example.com")?.key())?;
        expect(&rig.mx, &["reload"], 0, "does not belong to the first certificate")?;
        rig.before_handshake("198.51.100.67")?.start_tls(&renewed)?;
        // Other files, and bad: nothing is taken.
        let other = SECTION.replace("key.pem", "none.pem");
        rig.mx.write("/etc/screener/screener.toml", &format!("{USUAL}{other}"))?;
        expect(&rig.mx, &["reload"], 2, "/etc/screener/tls/none.pem cannot be read: ")?;
        rig.before_handshake("198.51.100.68")?.start_tls(&renewed)?;
        // None any more: STARTTLS is the MTA's, which has none.
        rig.mx.write("/etc/screener/screener.toml", USUAL)?;
        rig.screener.tell(&["reload"])?;
        let mut plain = Client::connect(&rig.internet, "198.51.100.69".parse()?, rig.server()?)?;
        plain.expect(220)?;
        let offer = plain.ask("EHLO sender.example.net", 250)?;
        ensure!(!offer.contains("STARTTLS"), "{}", offer.text());
        mail(&mut held, "through all of it")
    });
}
