//! The same settings in both languages: options of a postscreen service, and the screener's configuration.

use std::net::IpAddr;

/// Our name on both sides.
pub const HOSTNAME: &str = "mx.example.com";

/// The program in the screener's log lines: what reads Postfix's log takes them for postscreen's.
pub const PROGRAM: &str = "postfix/postscreen";

/// What a client is told to add to a refusal, under [`Setting::Limits`].
pub const FOOTER: &str = "Ask postmaster@example.com about $client_address.";

/// One configuration that both sides are run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Every test, the failed ones enforced, the passed ones answered with 450.
    Enforce,
    /// Every test; who fails one is dropped.
    Drop,
    /// Every test, and nothing follows from a failure.
    Ignore,
    /// Only the tests before the greeting, enforced.
    Early,
    /// As [`Setting::Enforce`], but for the screener's own way after the tests: the session goes on with the MTA.
    Relay,
    /// Only the tests after the greeting, enforced.
    Deep,
    /// Only the tests after the greeting; who fails one is dropped.
    DeepDrop,
    /// Only the tests after the greeting, and nothing follows from a failure.
    DeepIgnore,
    /// As [`Setting::Deep`], with tight limits and a footer, in front of an MTA that verifies no addresses.
    Limits,
}

/// The zones of the lab's DNS lists and what they weigh.
pub const ZONES: [(&str, i32); 4] = [("bl.example", 3), ("grey.example", 1), ("wl.example", -3), ("wl2.example", -2)];

/// Where the screener finds the MTA: a door of the same Postfix.
pub(super) const MTA_PORT: u16 = 10_025;

/// The door of the MTA that verifies no addresses.
pub(super) const MTA_WITHOUT_VRFY_PORT: u16 = 10_026;

impl Setting {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Enforce,
        Self::Drop,
        Self::Ignore,
        Self::Early,
        Self::Relay,
        Self::Deep,
        Self::DeepDrop,
        Self::DeepIgnore,
        Self::Limits,
    ];

    /// In names of transcripts, hosts and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Drop => "drop",
            Self::Ignore => "ignore",
            Self::Early => "early",
            Self::Relay => "relay",
            Self::Deep => "deep",
            Self::DeepDrop => "deepdrop",
            Self::DeepIgnore => "deepignore",
            Self::Limits => "limits",
        }
    }

    /// The port of the postscreen service.
    #[must_use]
    pub fn port(self) -> u16 {
        2500 + self as u16
    }

    /// What Postfix puts before the name of a process in the log.
    #[must_use]
    pub fn log_name(self) -> String {
        format!("postfix-{}", self.name())
    }

    fn action(self) -> &'static str {
        match self {
            Self::Enforce | Self::Early | Self::Relay | Self::Deep | Self::Limits => "enforce",
            Self::Drop | Self::DeepDrop => "drop",
            Self::Ignore | Self::DeepIgnore => "ignore",
        }
    }

    /// Whether there is anything to wait for before the greeting.
    #[must_use]
    pub fn waits(self) -> bool {
        match self {
            Self::Enforce | Self::Drop | Self::Ignore | Self::Early | Self::Relay => true,
            Self::Deep | Self::DeepDrop | Self::DeepIgnore | Self::Limits => false,
        }
    }

    /// The service's line of `master.cf`.
    #[must_use]
    pub fn postscreen(self) -> String {
        let (name, action, port) = (self.name(), self.action(), self.port());
        let deep = if self == Self::Early { "no" } else { "yes" };
        let mut text = format!("{port} inet n - n - 1 postscreen\n");
        let mut option = |name: &str, value: &str| text += &format!("  -o {{ {name} = {value} }}\n");
        option("syslog_name", &self.log_name());
        option("postscreen_cache_map", &format!("btree:/var/lib/postfix/postscreen_{name}"));
        for test in ["greet", "dnsbl", "denylist", "pipelining", "non_smtp_command", "bare_newline"] {
            option(&format!("postscreen_{test}_action"), action);
        }
        for test in ["pipelining", "non_smtp_command", "bare_newline"] {
            option(&format!("postscreen_{test}_enable"), deep);
        }
        if !self.waits() {
            // That is how the test is switched off.
            option("postscreen_greet_banner", "");
            option("postscreen_dnsbl_sites", "");
        }
        if self == Self::Limits {
            option("postscreen_command_count_limit", "5");
            option("postscreen_command_time_limit", "4s");
            option("postscreen_client_connection_count_limit", "2");
            option("postscreen_disable_vrfy_command", "yes");
            option("disable_vrfy_command", "yes");
            option("postscreen_reject_footer", FOOTER);
        }
        text
    }

    /// The screener's configuration; `primary` are the addresses where a pass is earned.
    #[must_use]
    pub fn screener(self, primary: &[IpAddr], mta: IpAddr, permitted: &[String], denied: &[String]) -> String {
        let action = self.action();
        let after_tests = if self == Self::Relay { "relay" } else { "defer" };
        let port = if self == Self::Limits { MTA_WITHOUT_VRFY_PORT } else { MTA_PORT };
        let pass_on: Vec<String> = primary.iter().map(|address| format!("\"{address}\"")).collect();
        let wait = if self.waits() { WAIT } else { "0s" };
        let mut text = format!(
            "hostname = \"{HOSTNAME}\"\n\
             [listen]\nmode = \"front\"\npass_on = [{}]\n\
             [backend]\naddress = \"{mta}:{port}\"\nafter_tests = \"{after_tests}\"\n\
             [kernel]\nxdp = \"off\"\n\
             [ladder]\nenable = false\n\
             [control]\ngroup = \"root\"\n\
             [observe]\nprogram = \"{PROGRAM}\"\n\
             [tests.pregreet]\naction = \"{action}\"\nwait = \"{wait}\"\n",
            pass_on.join(", "),
        );
        if self.waits() {
            let sites: Vec<String> = ZONES.iter().map(|(zone, weight)| format!("\"{zone}*{weight}\"")).collect();
            text += &format!(
                "[tests.dnsbl]\naction = \"{action}\"\nthreshold = 3\nallow_threshold = -2\ndeadline = \"{WAIT}\"\n\
                 sites = [{}]\n",
                sites.join(", ")
            );
        }
        for test in ["pipelining", "non_smtp_command", "bare_newline"] {
            text += &format!("[tests.{test}]\nenable = {}\naction = \"{action}\"\n", self != Self::Early);
        }
        for (table, prefixes) in [("permit", permitted), ("deny", denied)] {
            for prefix in prefixes {
                text += &format!("[[{table}]]\nprefix = \"{prefix}\"\n");
            }
        }
        if self == Self::Limits {
            text += "[limits]\ncommands = 5\ncommand_time = \"4s\"\nper_client = 2\n";
            text += &format!("[replies]\nfooter = \"{FOOTER}\"\n");
        }
        text
    }
}

/// The greet wait of both sides. Long enough for a helper process of postscreen's to start on a busy machine and ask a DNS
/// list: what is answered later, postscreen does not hear.
pub const WAIT: &str = "3s";

/// What all postscreen services have in common, in `main.cf`; `backup` are the addresses where no pass is earned.
#[must_use]
pub fn main_cf(backup: &[IpAddr]) -> String {
    let sites: Vec<String> = ZONES.iter().map(|(zone, weight)| format!("{zone}*{weight}")).collect();
    let vetoed: Vec<String> = backup
        .iter()
        .map(|address| if address.is_ipv6() { format!("![{address}]") } else { format!("!{address}") })
        .collect();
    format!(
        "myhostname = {HOSTNAME}\n\
         smtpd_banner = $myhostname ESMTP\n\
         mynetworks = 127.0.0.0/8\n\
         default_process_limit = 500\n\
         max_use = 1000\n\
         smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n\
         smtpd_client_connection_count_limit = 0\n\
         smtpd_tls_security_level = none\n\
         virtual_mailbox_domains = example.com\n\
         virtual_mailbox_base = /var/mail/virtual\n\
         virtual_mailbox_maps = inline:{{ bob@example.com=example.com/bob/ }}\n\
         virtual_uid_maps = static:5000\n\
         virtual_gid_maps = static:5000\n\
         postscreen_access_list = permit_mynetworks, cidr:/etc/postfix/postscreen_access.cidr\n\
         postscreen_allowlist_interfaces = {}, static:all\n\
         postscreen_greet_wait = {WAIT}\n\
         postscreen_dnsbl_sites = {}\n\
         postscreen_dnsbl_threshold = 3\n\
         postscreen_dnsbl_allowlist_threshold = -2\n\
         postscreen_client_connection_count_limit = 50\n",
        vetoed.join(", "),
        sites.join(", "),
    )
}

/// The helpers of postscreen, in `master.cf`, and the doors for the screener.
pub const SERVICES: &str = "\
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
10025 inet n - n - - smtpd
  -o syslog_name=postfix/relay
  -o smtpd_upstream_proxy_protocol=haproxy
10026 inet n - n - - smtpd
  -o syslog_name=postfix/relay
  -o smtpd_upstream_proxy_protocol=haproxy
  -o disable_vrfy_command=yes
";
