//! The table of `cargo xtask run`, as a test.

use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::way::{self, Lab};

#[test]
fn every_row_of_the_table_is_as_it_must_be() {
    cell::test_within("every_row_of_the_table_is_as_it_must_be", Duration::from_secs(600), || -> Result<()> {
        let mut lab = Lab::build()?;
        let rows = way::play(&mut lab, |_, _| {});
        let differing: Vec<_> = rows
            .iter()
            .filter(|row| !row.ok)
            .map(|row| format!("{} {}: {}, but: {}", row.family, row.scenario, row.expected, row.seen))
            .collect();
        ensure!(rows.len() == 16, "{} rows", rows.len());
        ensure!(differing.is_empty(), "{}", differing.join("\n"));
        Ok(())
    });
}
