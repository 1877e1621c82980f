//! A sending Postfix on an Internet host: the client that does everything right, and retries as real ones do.
//!
//! One instance can speak from several addresses of its host. The envelope sender chooses, so that a mail's way is
//! fixed when it is sent and no reconfiguration races with a delivery.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::host::Host;
use crate::net::Family;
use crate::postfix::{Postfix, find};
use crate::wait::until_or_show;

/// One way out of a sender.
#[derive(Clone, Debug)]
pub struct Route {
    /// Mail of this envelope sender goes this way.
    pub from: String,
    /// The address the sender speaks from.
    pub source: IpAddr,
    /// The server it speaks to, at port 25.
    pub server: IpAddr,
}

/// The sending Postfix.
#[derive(Debug)]
pub struct Sender {
    postfix: Postfix,
}

/// What became of an attempt to deliver a mail, from the sender's own log.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryLine {
    /// The sender's queue number of the mail.
    pub queue_id: String,
    /// The recipient.
    pub to: String,
    /// Where it went, such as `192.0.2.10[192.0.2.10]:25`.
    pub relay: String,
    /// The delivery status code, such as `2.0.0`.
    pub dsn: String,
    /// `sent`, `deferred` or `bounced`.
    pub status: String,
    /// Seconds from the mail's arrival in the queue until this line.
    pub delay: f64,
    /// How many deliveries this connection had, if more than one.
    pub conn_use: u32,
    /// The text in the parentheses after the status: mostly the server's reply.
    pub reply: String,
}

/// Numbers the messages of a cell.
static SENT: AtomicU32 = AtomicU32::new(0);

impl Sender {
    /// Starts a sender with its ways out.
    ///
    /// # Errors
    /// When Postfix does not start.
    pub fn start(host: &Host, routes: &[Route]) -> Result<Self> {
        let routes = routes.iter().map(|route| (route, String::new()));
        Self::start_with(host, routes, "")
    }

    /// Starts a sender with settings for each way out (lines for `master.cf`) and for the whole (for `main.cf`).
    ///
    /// # Errors
    /// When Postfix does not start.
    pub fn start_with<'a>(
        host: &Host,
        routes: impl IntoIterator<Item = (&'a Route, String)>,
        extra: &str,
    ) -> Result<Self> {
        let (settings, services) = configuration(host.name(), routes);
        let postfix = Postfix::start(host, &(settings + extra), &services)?;
        Ok(Self { postfix })
    }

    /// Starts a sender that finds its way as the Internet does: by the MX records of the recipient's domain, IPv4 before
    /// IPv6 within one preference, and with no more than the two sessions for a mail that Postfix takes by default.
    ///
    /// # Errors
    /// When Postfix does not start.
    pub fn start_by_mx(host: &Host) -> Result<Self> {
        let settings = format!(
            "myhostname = {name}.example.net\n\
             mynetworks = 127.0.0.0/8\n\
             default_transport = mx\n\
             smtp_tls_security_level = none\n\
             minimal_backoff_time = 300s\n",
            name = host.name()
        );
        let services = "mx unix - - n - - smtp\n  -o disable_dns_lookups=no -o smtp_dns_support_level=enabled\n  \
                        -o smtp_host_lookup=dns -o smtp_address_preference=ipv4 -o smtp_mx_session_limit=2\n";
        let postfix = Postfix::start(host, &settings, services)?;
        Ok(Self { postfix })
    }

    /// The instance, for its log and its host.
    #[must_use]
    pub fn postfix(&self) -> &Postfix {
        &self.postfix
    }

    /// Sends a mail by `sendmail(1)` and gives its `Message-ID`, without the angle brackets.
    ///
    /// # Errors
    /// When sendmail refuses it. Nothing is said about its delivery.
    pub fn send(&self, from: &str, to: &str, body: &str) -> Result<String> {
        let number = SENT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{number}@{}.example.net", self.postfix.host().name());
        let mut sendmail = self.postfix.command("sendmail");
        let mut child = sendmail
            .args(["-f", from, to])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("running sendmail")?;
        let text = format!("From: <{from}>\nTo: <{to}>\nSubject: mail {number}\nMessage-ID: <{id}>\n\n{body}\n");
        child
            .stdin
            .take()
            .context("the input of sendmail")?
            .write_all(text.as_bytes())
            .context("writing to sendmail")?;
        let output = child.wait_with_output().context("waiting for sendmail")?;
        ensure!(output.status.success(), "sendmail: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(id)
    }

    /// Waits until a mail has left, and gives the line that says so.
    ///
    /// # Errors
    /// When it has not in time or bounced; attempts that deferred it are waited through: see [`Sender::attempts`].
    pub fn wait_for_sent(&self, id: &str, timeout: Duration) -> Result<DeliveryLine> {
        let sent = |line: &DeliveryLine| line.status != "deferred";
        let line = self.wait_for(id, "leave the sender", timeout, sent)?;
        ensure!(line.status == "sent", "mail {id} was not delivered: {line:?}");
        Ok(line)
    }

    /// Waits for the outcome of the first attempt, whatever it is.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_for_attempt(&self, id: &str, timeout: Duration) -> Result<DeliveryLine> {
        self.wait_for(id, "be tried", timeout, |_| true)
    }

    /// Every attempt to deliver a mail until now, oldest first.
    #[must_use]
    pub fn attempts(&self, id: &str) -> Vec<DeliveryLine> {
        attempts(&self.postfix.log(), id)
    }

    /// Tries the mail in the queue again now.
    ///
    /// # Errors
    /// When Postfix refuses.
    pub fn flush(&self) -> Result<()> {
        self.postfix.host().ask("postqueue", &["-f"]).map(drop)
    }

    fn wait_for(
        &self,
        id: &str,
        what: &str,
        timeout: Duration,
        fits: impl Fn(&DeliveryLine) -> bool,
    ) -> Result<DeliveryLine> {
        let what = format!("mail {id} to {what}");
        let log = || self.postfix.log();
        until_or_show(&what, timeout, log, || Ok(self.attempts(id).into_iter().find(&fits)))
    }
}

fn configuration<'a>(name: &str, routes: impl IntoIterator<Item = (&'a Route, String)>) -> (String, String) {
    let mut maps = String::new();
    let mut services = String::new();
    for (number, (route, options)) in routes.into_iter().enumerate() {
        let (server, bind) = match Family::of(route.server) {
            Family::V4 => (format!("[{}]", route.server), "smtp_bind_address"),
            Family::V6 => (format!("[IPv6:{}]", route.server), "smtp_bind_address6"),
        };
        maps += &format!(" {{ {}=out{number}:{server} }}", route.from);
        services += &format!("out{number} unix - - n - - smtp\n  -o {bind}={source}\n{options}", source = route.source);
    }
    let settings = format!(
        "myhostname = {name}.example.net\n\
         mynetworks = 127.0.0.0/8\n\
         smtp_tls_security_level = none\n\
         smtp_host_lookup = native\n\
         minimal_backoff_time = 300s\n\
         sender_dependent_default_transport_maps = inline:{{{maps} }}\n"
    );
    (settings, services)
}

fn attempts(log: &str, id: &str) -> Vec<DeliveryLine> {
    let mark = format!("message-id=<{id}>");
    let Some(queue_id) = find(log, &[&mark]).and_then(|line| {
        let before = line.split(": message-id=").next()?;
        before.rsplit(": ").next()
    }) else {
        return Vec::new();
    };
    let mark = format!(": {queue_id}: to=<");
    log.lines().filter(|line| line.contains(&mark)).filter_map(|line| DeliveryLine::parse(queue_id, line)).collect()
}

impl DeliveryLine {
    fn parse(queue_id: &str, line: &str) -> Option<Self> {
        let (fields, rest) = line.split_once(", status=")?;
        let (status, reply) = rest.split_once(' ').unwrap_or((rest, ""));
        let field = |name: &str| {
            let mut all = fields.split(", ");
            all.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let to = fields.split_once(": to=<")?.1.split_once('>')?.0;
        Some(Self {
            queue_id: queue_id.to_owned(),
            to: to.to_owned(),
            relay: field("relay")?.to_owned(),
            dsn: field("dsn")?.to_owned(),
            status: status.to_owned(),
            delay: field("delay")?.parse().ok()?,
            conn_use: field("conn_use").map_or(Some(1), |text| text.parse().ok())?,
            reply: reply.trim_start_matches('(').trim_end_matches(')').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_line_is_understood() {
        let log = "\
Jan 01 00:00:00 out postfix/cleanup[7]: 4C1: message-id=<3@out.example.net>
Jan 01 00:00:01 out postfix/out0[8]: 4C1: to=<bob@example.com>, relay=192.0.2.10[192.0.2.10]:25, \
conn_use=2, delay=1.5, delays=0/0/1/0.5, dsn=4.3.2, status=deferred (host said: 450 4.3.2 no)
Jan 01 00:00:09 out postfix/out0[8]: 4C1: to=<bob@example.com>, relay=192.0.2.10[192.0.2.10]:25, \
delay=9, delays=0/0/1/0.5, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 5D2)
";
        let found = attempts(log, "3@out.example.net");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].status.as_str(), found[0].conn_use), ("deferred", 2));
        assert_eq!((found[1].dsn.as_str(), found[1].to.as_str()), ("2.0.0", "bob@example.com"));
        assert_eq!(found[1].reply, "250 2.0.0 Ok: queued as 5D2");
        assert!(attempts(log, "4@out.example.net").is_empty());
    }
}
