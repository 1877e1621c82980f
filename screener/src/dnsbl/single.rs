//! Every list asked once about one address, with its test points: for `screener test`. Keeps and changes nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::DnsblError;
use super::answer::{Looked, Said};
use super::list::{List, sum};
use super::points;
use super::resolver::Resolver;
use crate::config::{DnsblTest, ListLevel};

/// What all lists say about one address.
#[derive(Clone, Debug, PartialEq)]
pub struct Single {
    /// List by list, in the order of the configuration.
    pub lists: Vec<Asked>,
    /// The sum of the weights that count.
    pub score: i32,
}

/// What one list says.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Its public name.
    pub list: String,
    /// What comes of its answers.
    pub level: ListLevel,
    /// `listed`, `not_listed`, `error`, `unknown` or `not_asked`.
    pub said: &'static str,
    /// The records of its answer.
    pub codes: Vec<Ipv4Addr>,
    /// What it weighs; 0 unless listed.
    pub weight: i32,
    /// Whether it goes into the score.
    pub counts: bool,
    /// How long the answer took.
    pub took: Duration,
    /// How long it holds, by its own word: before the clamps of the configuration.
    pub ttl: Option<Duration>,
    /// What it says about the address.
    pub text: Option<String>,
    /// Where there is more.
    pub url: Option<String>,
    /// Why the answer does not count.
    pub wrong: Option<String>,
}

/// Asks every list of a configuration about an address.
///
/// # Errors
/// When a code filter is wrong, or there is no resolver.
pub async fn ask(config: &DnsblTest, address: IpAddr) -> Result<Single, DnsblError> {
    let resolver = Resolver::new(&config.resolvers)?;
    let lists: Vec<_> = config.lists.iter().map(List::configured).collect::<Result<_, _>>()?;
    let tasks: Vec<_> = lists
        .into_iter()
        .map(|list| {
            let resolver = resolver.clone();
            tokio::spawn(async move { one(&resolver, &list, address).await })
        })
        .collect();
    let mut lists = Vec::new();
    for task in tasks {
        // A task that broke has said so on standard error.
        lists.extend(task.await);
    }
    let score = sum(lists.iter().filter(|asked| asked.counts).map(|asked| asked.weight));
    Ok(Single { lists, score })
}

async fn one(resolver: &Resolver, list: &List, address: IpAddr) -> Asked {
    let mut asked = Asked {
        list: list.name().to_string(),
        level: list.level,
        said: "not_asked",
        codes: Vec::new(),
        weight: 0,
        counts: false,
        took: Duration::ZERO,
        ttl: None,
        text: None,
        url: None,
        wrong: None,
    };
    let Some(name) = list.query_name(address) else { return asked };
    let began = Instant::now();
    let question = async {
        let looked = resolver.a(name.clone()).await;
        (looked, began.elapsed())
    };
    let ((looked, took), tested) = tokio::join!(question, points::test(resolver, list));
    if address.to_canonical().is_ipv6() && tested.knows_v6 == Some(false) {
        asked.wrong = Some("it knows no IPv6".to_owned());
        return asked;
    }
    asked.took = took;
    match looked {
        Looked::Nothing(ttl) => {
            asked.said = "not_listed";
            asked.ttl = ttl;
        }
        Looked::Failed(failure) => {
            asked.said = "unknown";
            asked.wrong = Some(failure.to_string());
        }
        Looked::Records(records, ttl) => {
            asked.ttl = Some(ttl);
            match list.judge(&records) {
                Said::Listed { weight, .. } => {
                    asked.said = "listed";
                    asked.weight = weight;
                    asked.counts = list.level == ListLevel::Score;
                    asked.url = list.url(address);
                    asked.text = if list.text { resolver.text(name, list).await } else { None };
                }
                Said::NotListed => asked.said = "not_listed",
                Said::Bad(bad) => {
                    asked.said = "error";
                    asked.wrong = Some(bad.to_string());
                }
            }
            asked.codes = records;
        }
    }
    if let Some(why) = tested.wrong.filter(|_| asked.wrong.is_none()) {
        asked.wrong = Some(why.to_string());
        asked.counts &= !why.parks_at_once();
    }
    asked
}
