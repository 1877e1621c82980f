//! `kernel.syn_rate`: a client that opens connections faster than it may meets silence, and it is to be found out why.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{bail, ensure};

use screener_tests::cell;
use screener_tests::client::{Client, Trouble};
use screener_tests::mta::Mta;
use screener_tests::net::{Family, Net};
use screener_tests::screener::Screener;
use screener_tests::wait::until_or_show;

const SOON: Duration = Duration::from_secs(20);
/// How long a SYN that is dropped is waited for: less than a second, after which one more may come.
const SILENCE: Duration = Duration::from_millis(200);

fn config(kernel: &str) -> String {
    format!("hostname = \"mx.example.com\"\n[kernel]\ninterfaces = [\"eth0\"]\n{kernel}\n[control]\ngroup = \"root\"\n")
}

#[test]
fn a_client_over_its_rate_meets_silence_and_explain_says_why() {
    cell::test("a_client_over_its_rate_meets_silence_and_explain_says_why", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, &config("syn_rate = \"1/s burst 3\""))?;
        for family in Family::BOTH {
            let source: IpAddr = family.pick("198.51.100.20", "2001:db8:a:20::1").parse()?;
            let server = SocketAddr::new(mx.address(family)?, 25);
            for _ in 0..3 {
                Client::connect(&internet, source, server)?;
            }
            // A machine that is slow now lets another second pass and another client in, or is silent itself: it goes on until
            // both are there, the silence and its reason.
            let asked = source.to_string();
            until_or_show(
                "a SYN over the rate to meet silence, and explain to say why",
                SOON,
                || screener.log(),
                || {
                    let met = Client::connect_within(&internet, source, server, SILENCE);
                    let explained = screener.json(&["explain", &asked, "--json"])?;
                    let told = explained["events"].to_string().contains("kernel.syn_rate");
                    Ok((told && matches!(met, Err(Trouble::Silence(_)))).then_some(()))
                },
            )?;
            // Others are not concerned.
            let other: IpAddr = family.pick("198.51.100.21", "2001:db8:a:21::1").parse()?;
            Client::connect(&internet, other, server)?;
        }
        let status = screener.json(&["status", "--json"])?;
        let counters = status["kernel"]["counters"].as_array().cloned().unwrap_or_default();
        let over = counters.iter().filter(|counter| counter["name"] == "drop_over_rate");
        ensure!(over.filter(|counter| counter["packets"].as_u64() > Some(0)).count() == 2, "{status}");
        ensure!(status["kernel"]["event_sample"] == 1 && status["kernel"]["events_lost"] == 0, "{status}");
        Ok(())
    });
}

#[test]
fn a_rate_that_nobody_holds_is_said() {
    cell::test("a_rate_that_nobody_holds_is_said", || {
        let (mx, _internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &config("xdp = \"off\"\nsyn_rate = \"20/s burst 40\""))?;
        let status = screener.json(&["status", "--json"])?;
        let said = status["degraded"].to_string();
        if !said.contains("kernel.syn_rate holds nobody back") {
            bail!("{said}");
        }
        screener.wait_for_log("kernel.syn_rate holds nobody back", SOON)?;
        Ok(())
    });
}
