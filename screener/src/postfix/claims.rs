//! First match wins, over ranges of addresses: who claims an address first keeps it.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::feed::{Holes, Span};

/// What has been claimed, by what.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims<V>(BTreeMap<Span, V>);

impl<V: Clone> Claims<V> {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Gives what is free of a range to somebody.
    pub(super) fn claim(&mut self, span: Span, by: &V) {
        // In order they do not overlap: of those that begin before, only the last can reach in.
        let before = self.0.range(..span).next_back().map(|(taken, _)| *taken);
        let within = self.0.range(span..).map(|(taken, _)| *taken).take_while(|taken| taken.meets(span));
        let met: Vec<Span> = before.into_iter().filter(|taken| taken.meets(span)).chain(within).collect();
        for free in Holes::new(met).cut(span) {
            self.0.insert(free, by.clone());
        }
    }

    /// Each range, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Span, &V)> {
        self.0.iter().map(|(span, by)| (*span, by))
    }

    /// Each prefix, in order.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (IpNet, &V)> {
        self.iter().flat_map(|(span, by)| span.prefixes().map(move |net| (net, by)))
    }
}
