//! How long a host takes to tell a store of many passes, and one to hear of them from it; and what its clients notice.
//!
//! Both daemons run, cut off from a store that is empty. The one that has passes is let to it and tells; then the other is,
//! and hears. Clients come to each before and meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::crowd::{Mx, STRANGER, config, in_kernel, known};
use crate::bench::greeting::beside;
use crate::bench::report::{Rows, median, percentile, sorted};
use crate::host::Host;
use crate::mxs::{cut, mend, shared, wait_for_state};
use crate::net::{Net, Plan};
use crate::redis::Redis;

/// How long clients come while nothing goes on.
const BEFORE: Duration = Duration::from_secs(1);

/// Measures. Gives what was wrong.
///
/// # Errors
/// When a daemon does not come to share.
pub(super) fn measure(
    net: &Net,
    clients: &Host,
    full: &mut Mx,
    passes: u32,
    empty: &mut Mx,
    rows: &mut Rows,
) -> Result<Vec<String>> {
    eprintln!("bench: {passes} passes told to a store and heard from it");
    let plan = Plan { name: "store-full", addresses: &["192.0.2.71"], prefixes: &[] };
    let store = Redis::start(&net.host(&plan)?, "")?;
    for mx in [&mut *full, &mut *empty] {
        cut(&mx.host, "reject with tcp reset")?;
        mx.screener.stop()?;
        mx.screener.configure(&config("[ledger]\nshared = \"redis://192.0.2.71\"\n"))?;
        mx.screener.restart()?;
        wait_for_state(&mx.screener, "away")?;
    }
    let told = join(clients, full, passes, "share_tell", rows).context("telling")?;
    let known = known(&store)?;
    let heard = join(clients, empty, passes, "share_hear", rows).context("hearing")?;
    let right = [told, known, heard] == [u64::from(passes); 3];
    let wrong = || format!("of {passes} passes {told} were told, the store knows {known}, {heard} were heard");
    Ok(Vec::from_iter((!right).then(wrong)))
}

/// Lets a host to the store, and waits until it shares and its kernel has everything. Gives how many passes it has told or heard.
fn join(clients: &Host, mx: &Mx, passes: u32, name: &str, rows: &mut Rows) -> Result<u64> {
    let ((), before) = beside(clients, STRANGER, mx.server, || {
        thread::sleep(BEFORE);
        Ok(())
    })?;
    let ((sharing, kernel), meanwhile) = beside(clients, STRANGER, mx.server, || {
        mend(&mx.host)?;
        // It may be in a pause between two tries.
        let is = |state: &'static str| move |status: &Value| status["shared"]["state"] == state;
        mx.wait_for(Instant::now(), "connection to the store", |status| {
            is("joining")(status) || is("sharing")(status)
        })?;
        let begun = Instant::now();
        let sharing = mx.wait_for(begun, "end of joining", is("sharing"))?;
        let kernel = mx.wait_for(begun, "whole map", |status| in_kernel(status) == Some(passes.into()))?;
        Ok((sharing, kernel))
    })?;
    rows.put(&format!("{name}_seconds"), "s", vec![sharing]);
    rows.put(&format!("{name}_kernel_seconds"), "s", vec![kernel]);
    for (when, times) in [("before", before), ("meanwhile", meanwhile)] {
        rows.put(&format!("{name}_greeting_{when}_ms"), "ms", vec![median(&sorted(times.clone()))]);
        rows.put(&format!("{name}_greeting_{when}_p99_ms"), "ms", vec![percentile(&times, 99)]);
    }
    let shared = shared(&mx.screener)?;
    let count = |key: &str| shared[key].as_u64().with_context(|| format!("no {key} in {shared}"));
    Ok(count("told")? + count("heard")?)
}
