//! Lists in rbldnsd's and spamd's forms, imported by command; rbldnsd's against what the real server says of the same file.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};

use screener_tests::cell;
use screener_tests::cli::expect;
use screener_tests::dns::Kind;
use screener_tests::dnsl::Dnsl;
use screener_tests::net::Net;
use screener_tests::screener::{GUARDED, Screener};

/// Each notation, around the addresses that are asked about.
const NOTATIONS: &str = "\
$SOA 300 ns.bl.test. admin.bl.test. 0 600 300 86400 300
$TIMESTAMP 2020:01:01 0
:127.0.0.3:Listed, see $1
$1 https://bl.test/
127.0.0.2
198.51.100.1-6 ; a range with a suffix
198.51.100.9-198.51.100.20
! 198.51.100.12-13
198.51.100.32/28 :127.0.0.4:with a value
!198.51.100.40 ignored
198.51.100.64/26 text alone # and more of it
!198.51.100.64
!198.51.100.127
198.51.100.200
2001:db8:1:2
!2001:db8:1:2::9
2001:db8:5/48 :4:
!2001:db8:5:1::/64
2001:db8:5:1::7
2001:db8:6::/127
";

/// Lines in 203.0.113.0/24, by a fixed seed.
fn made_up(lines: usize) -> String {
    let mut seed = 0x2545_f491_u32;
    let mut below = |limit: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % limit
    };
    let mut text = String::new();
    for _ in 0..lines {
        let mark = if below(3) == 0 { "!" } else { "" };
        let (first, more) = (below(256), below(24));
        let last = (first + more).min(255);
        let length = 26 + below(7);
        let network = first >> (32 - length) << (32 - length);
        let entry = match below(4) {
            0 => format!("{first}-{last}"),
            1 => format!("{first}-203.0.113.{last}"),
            2 => first.to_string(),
            _ => format!("{network}/{length}"),
        };
        let _ = writeln!(text, "{mark}203.0.113.{entry}");
    }
    text
}

#[test]
fn what_a_real_rbldnsd_lists_and_does_not_exclude_is_denied_and_nothing_else() {
    cell::test("what_a_real_rbldnsd_lists_and_does_not_exclude_is_denied_and_nothing_else", || {
        let mx = Net::mx()?;
        let screener = Screener::start(&mx, GUARDED)?;
        let text = NOTATIONS.to_owned() + &made_up(60);
        // The server itself says what is listed, what is excluded, and what comes of both.
        let lines = |excluded: bool| -> String {
            let of = text.lines().filter(|line| line.starts_with('!') == excluded || line.starts_with(['$', ':']));
            let of: Vec<_> = of.map(|line| line.trim_start_matches('!').trim_start()).collect();
            of.join("\n") + "\n127.0.0.2\n"
        };
        let (listed, excluded) = (lines(false), lines(true));
        let lists = Dnsl::serve(
            &mx,
            &[
                ("listed.test", "ip4set", &listed),
                ("listed.test", "ip6trie", &listed),
                ("excluded.test", "ip4set", &excluded),
                ("excluded.test", "ip6trie", &excluded),
                ("whole.test", "ip4set", &text),
                ("whole.test", "ip6trie", &text),
            ],
        )?;
        mx.write("/tmp/list", &text)?;
        let import = ["deny", "import", "/tmp/list", "--format", "rbldnsd"];
        expect(&mx, &import, 0, "exclusions were cut out of what the list denies")?;
        expect(&mx, &import, 0, "1 lines are test points for DNS lists")?;
        let denied: Vec<(IpAddr, u8)> = screener
            .tell(&["deny", "export", "--origin", "cli"])?
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(prefix)
            .collect::<Result<_>>()?;

        let mut asked: Vec<IpAddr> = Vec::new();
        for network in [Ipv4Addr::new(198, 51, 100, 0), Ipv4Addr::new(203, 0, 113, 0)] {
            asked.extend((0..256).map(|host| IpAddr::from(Ipv4Addr::from_bits(network.to_bits() + host))));
        }
        for text in ["1:2::", "1:2::8", "1:2::9", "1:2::a", "1:3::", "5::", "5:1::6", "5:1::7", "5:2::", "6::1", "6::2"]
        {
            asked.push(format!("2001:db8:{text}").parse()?);
        }
        let mut met = [0; 2];
        for &address in &asked {
            let says = |zone| -> Result<bool> { Ok(!lists.lookup(zone, address, Kind::A)?.addresses.is_empty()) };
            let ours = denied.iter().any(|&(net, length)| covers(net, length, address));
            ensure!(ours == (says("listed.test")? && !says("excluded.test")?), "{address}: denied: {ours}\n{text}");
            ensure!(!ours || says("whole.test")?, "{address} is denied and rbldnsd does not list it\n{text}");
            met[usize::from(ours)] += 1;
        }
        ensure!(met[0] > 100 && met[1] > 100, "{met:?}");
        Ok(())
    });
}

#[test]
fn a_notation_that_rbldnsd_does_not_take_is_refused_with_its_line() {
    cell::test("a_notation_that_rbldnsd_does_not_take_is_refused_with_its_line", || {
        let mx = Net::mx()?;
        let screener = Screener::start(&mx, GUARDED)?;
        for line in ["10", "10-10.0.0", "203.0.113.1/24", "203.0.113.9-8", "203.0.113.1 :0:no address", "203.0.113.1x"]
        {
            let text = format!("127.0.0.2\n{line}\n");
            let lists = Dnsl::serve(&mx, &[("bl.test", "ip4set", &text)])?;
            for address in ["203.0.113.1", "203.0.113.8", "10.0.0.1"] {
                let answer = lists.lookup("bl.test", address.parse()?, Kind::A)?;
                ensure!(answer.addresses.is_empty(), "{line}: rbldnsd takes it: {answer:?}");
            }
            mx.write("/tmp/list", &text)?;
            expect(&mx, &["deny", "import", "/tmp/list", "--format", "rbldnsd"], 2, "/tmp/list:2: ")?;
        }
        ensure!(screener.json(&["deny", "list", "--json"])?.as_array().is_some_and(Vec::is_empty));
        Ok(())
    });
}

#[test]
fn the_lists_of_spamd_conf_are_imported_less_their_white_lists() {
    cell::test("the_lists_of_spamd_conf_are_imported_less_their_white_lists", || {
        let mx = Net::mx()?;
        let screener = Screener::start(&mx, GUARDED)?;
        let conf = "all:\\\n\t:trap:override:\ntrap:\\\n\t:black:\\\n\t:msg=\"see: %A\":\\\n\t:method=file:\\\n\t:file=/tmp/trap:\n\
                    override:\\\n\t:white:\\\n\t:method=file:\\\n\t:file=/tmp/white:\n";
        mx.write("/tmp/spamd.conf", conf)?;
        mx.write("/tmp/trap", "# trapped\n203.0.113.0/30\n198.51.100.8 - 198.51.100.9\n")?;
        mx.write("/tmp/white", "203.0.113.1\n")?;
        let import = |file, code, part| expect(&mx, &["deny", "import", file, "--format", "spamd"], code, part);
        import("/tmp/spamd.conf", 0, "3 added")?;
        let all = screener.tell(&["deny", "export"])?;
        for net in ["203.0.113.0/32", "203.0.113.2/31", "198.51.100.8/31"] {
            ensure!(all.contains(net), "{net} is not in {all}");
        }
        mx.write("/tmp/lines", "trap;\"Your address %A\";inet;1;203.0.113.64/26\n")?;
        import("/tmp/lines", 0, "1 added")?;
        mx.write("/tmp/white", "203.0.113.1\nnobody\n")?;
        import("/tmp/spamd.conf", 2, "nothing was changed:\n/tmp/white:2: 'nobody': write 192.0.2.7")?;
        mx.write("/tmp/spamd.conf", &conf.replacen("method=file", "method=http", 1))?;
        import("/tmp/spamd.conf", 2, "/tmp/spamd.conf:3: list 'trap' comes by http, and nothing is fetched from here")
    });
}

fn prefix(line: &str) -> Result<(IpAddr, u8)> {
    let (address, length) = line.split_whitespace().next().and_then(|word| word.split_once('/')).context("a prefix")?;
    Ok((address.parse()?, length.parse()?))
}

fn covers(net: IpAddr, length: u8, address: IpAddr) -> bool {
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            let behind = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            (net.to_bits() ^ address.to_bits()) & !behind == 0
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            let behind = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            (net.to_bits() ^ address.to_bits()) & !behind == 0
        }
        _ => false,
    }
}
