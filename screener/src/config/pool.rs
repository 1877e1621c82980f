//! The rules about `[[pool]]` and `[link]`: senders that are one though their addresses differ.
//!
//! Knows what a domain looks like; who its senders are is known to `pool/`.

use std::time::Duration;

use super::check::{Judge, SECOND, YEARS};
use super::raw::{At, Link as RawLink, Pool as RawPool};
use super::tree::{Link, Pool};
use crate::dns::is_domain;

/// A sending MTA goes on to the next address at once, and after minutes at the latest.
const LONGEST_WINDOW: Duration = Duration::from_secs(86_400);
/// A client may give up on the reply to a recipient after five minutes (RFC 5321 section 4.5.3.2.3), and many do earlier.
const LONGEST_DEADLINE: Duration = Duration::from_secs(30);

impl Judge<'_, '_> {
    pub(super) fn pools(&mut self, raw: &[At<RawPool>]) -> Vec<Pool> {
        let mut pools = Vec::new();
        for pool in raw.iter().map(At::get_ref) {
            let domain = self.with(&pool.domain, |text| {
                if is_domain(text) {
                    return Ok(text.trim_end_matches('.').to_ascii_lowercase());
                }
                Err(format!(
                    "{text:?} is no domain: write the one whose SPF record names the senders, like \"google.com\""
                ))
            });
            let min_refresh = self.duration(&pool.min_refresh, SECOND..=YEARS);
            let max_refresh = self.duration(&pool.max_refresh, SECOND..=YEARS);
            if min_refresh > max_refresh {
                let [least, most] = [min_refresh, max_refresh].map(humantime::format_duration);
                let written = [pool.min_refresh.span(), pool.max_refresh.span()];
                let span = written.into_iter().find(|span| *span != (0..0)).unwrap_or(0..0);
                self.refuse(
                    span,
                    format!("min_refresh ({least}) is longer than max_refresh ({most}): swap or change them"),
                );
            }
            let growth = self.number(&pool.growth, 2..=1_000_000, " times: a pool may always grow a little");
            if let Some(domain) = domain {
                pools.push((pool.domain.span(), Pool { domain, min_refresh, max_refresh, growth }));
            }
        }
        self.twice(pools.iter().map(|(span, pool)| (pool.domain.clone(), span.clone())), |domain| {
            format!("there are two pools of {domain}: keep one")
        });
        pools.into_iter().map(|(_, pool)| pool).collect()
    }

    pub(super) fn link(&mut self, raw: &RawLink) -> Option<Link> {
        let link = Link {
            window: self.duration(&raw.window, SECOND..=LONGEST_WINDOW),
            deadline: self.duration(&raw.deadline, Duration::from_millis(100)..=LONGEST_DEADLINE),
        };
        raw.enable.then_some(link)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::Config;

    fn refusal(text: &str) -> String {
        Config::parse(text, "test.toml").expect_err("it is wrong").to_string()
    }

    #[test]
    fn a_pool_is_a_domain_and_has_clamps() {
        let text =
            "[[pool]]\ndomain = \"Google.com.\"\n[[pool]]\ndomain = \"_spf.example.net\"\nmax_refresh = \"6h\"\n";
        let config = Config::parse(text, "test.toml").unwrap();
        let [first, second] = &config.pools[..] else { panic!("{:?}", config.pools) };
        assert_eq!((first.domain.as_str(), first.growth), ("google.com", 4));
        assert_eq!((first.min_refresh, first.max_refresh), (Duration::from_secs(300), Duration::from_secs(86_400)));
        assert_eq!(second.max_refresh, Duration::from_secs(6 * 3_600));
    }

    #[test]
    fn what_is_no_pool_is_refused_where_it_stands() {
        for (entry, part) in [
            ("domain = \"192.0.2.1\"", "test.toml:2:10: pool[0].domain: \"192.0.2.1\" is no domain"),
            ("domain = \"spf:google.com\"", "write the one whose SPF record names the senders"),
            ("domain = \"a.example\"\nmin_refresh = \"2d\"", "longer than max_refresh (1day)"),
            ("domain = \"a.example\"\ngrowth = 1", "pool[0].growth: 1 is out of range: 2 to 1000000"),
            ("domain = \"a.example\"\n[[pool]]\ndomain = \"A.example\"", "there are two pools of a.example: keep one"),
            ("min_refresh = \"1h\"", "domain"),
            ("domain = \"a.example\"\nshare = true", "share"),
        ] {
            let said = refusal(&format!("[[pool]]\n{entry}\n"));
            assert!(said.contains(part), "{entry}: {said}");
        }
    }

    #[test]
    fn a_link_has_a_window_and_a_deadline_and_can_be_off() {
        let link = Config::default().link.expect("on by default");
        assert_eq!((link.window, link.deadline), (Duration::from_secs(600), Duration::from_secs(5)));
        assert_eq!(Config::parse("[link]\nenable = false\n", "test.toml").unwrap().link, None);
        assert!(refusal("[link]\nwindow = \"2d\"\n").contains("link.window: \"2d\" is out of range: 1s to 1day"));
        assert!(refusal("[link]\ndeadline = \"5m\"\n").contains("link.deadline: \"5m\" is out of range"));
    }
}
