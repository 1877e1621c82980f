//! Postfix's parameters as postscreen would see them: what `main.cf` sets, what `-o` overrides, and Postfix's own defaults.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::expand::{self, Fault};
use super::lines::logical;

/// Postfix's defaults of what is asked for here, and of what those lead to.
const DEFAULTS: &[(&str, &str)] = &[
    ("compatibility_level", "0"),
    ("data_directory", "/var/lib/postfix"),
    ("default_database_type", "hash"),
    ("default_process_limit", "100"),
    ("disable_vrfy_command", "no"),
    ("dnsblog_service_name", "dnsblog"),
    ("inet_interfaces", "all"),
    ("inet_protocols", "all"),
    ("line_length_limit", "2048"),
    ("mail_name", "Postfix"),
    ("mynetworks_style", "${{$compatibility_level} <level {2} ? {subnet} : {host}}"),
    ("postscreen_access_list", "permit_mynetworks"),
    (
        "postscreen_allowlist_interfaces",
        "${postscreen_whitelist_interfaces?{$postscreen_whitelist_interfaces}:{static:all}}",
    ),
    ("postscreen_bare_newline_action", "ignore"),
    ("postscreen_bare_newline_enable", "no"),
    ("postscreen_bare_newline_ttl", "30d"),
    ("postscreen_cache_map", "btree:$data_directory/postscreen_cache"),
    ("postscreen_cache_retention_time", "7d"),
    ("postscreen_client_connection_count_limit", "$smtpd_client_connection_count_limit"),
    ("postscreen_command_count_limit", "20"),
    ("postscreen_command_filter", ""),
    ("postscreen_command_time_limit", "${stress?{10}:{300}}s"),
    ("postscreen_denylist_action", "${postscreen_blacklist_action?{$postscreen_blacklist_action}:{ignore}}"),
    ("postscreen_disable_vrfy_command", "$disable_vrfy_command"),
    ("postscreen_discard_ehlo_keyword_address_maps", "$smtpd_discard_ehlo_keyword_address_maps"),
    ("postscreen_discard_ehlo_keywords", "$smtpd_discard_ehlo_keywords"),
    ("postscreen_dnsbl_action", "ignore"),
    (
        "postscreen_dnsbl_allowlist_threshold",
        "${postscreen_dnsbl_whitelist_threshold?{$postscreen_dnsbl_whitelist_threshold}:{0}}",
    ),
    ("postscreen_dnsbl_max_ttl", "${postscreen_dnsbl_ttl?{$postscreen_dnsbl_ttl}:{1}}h"),
    ("postscreen_dnsbl_min_ttl", "60s"),
    ("postscreen_dnsbl_reply_map", ""),
    ("postscreen_dnsbl_sites", ""),
    ("postscreen_dnsbl_threshold", "1"),
    ("postscreen_enforce_tls", "$smtpd_enforce_tls"),
    ("postscreen_forbidden_commands", "$smtpd_forbidden_commands"),
    ("postscreen_greet_action", "ignore"),
    ("postscreen_greet_banner", "$smtpd_banner"),
    ("postscreen_greet_ttl", "1d"),
    ("postscreen_greet_wait", "${stress?{2}:{6}}s"),
    ("postscreen_non_smtp_command_action", "drop"),
    ("postscreen_non_smtp_command_enable", "no"),
    ("postscreen_non_smtp_command_ttl", "30d"),
    ("postscreen_pipelining_action", "enforce"),
    ("postscreen_pipelining_enable", "no"),
    ("postscreen_pipelining_ttl", "30d"),
    ("postscreen_post_queue_limit", "$default_process_limit"),
    ("postscreen_pre_queue_limit", "$default_process_limit"),
    ("postscreen_reject_footer", "$smtpd_reject_footer"),
    ("postscreen_reject_footer_maps", "$smtpd_reject_footer_maps"),
    ("postscreen_tls_security_level", "$smtpd_tls_security_level"),
    ("postscreen_upstream_proxy_protocol", ""),
    ("postscreen_use_tls", "$smtpd_use_tls"),
    ("queue_directory", "/var/spool/postfix"),
    ("respectful_logging", "${{$compatibility_level} <level {3.6} ? {no} : {yes}}"),
    ("smtpd_banner", "$myhostname ESMTP $mail_name"),
    ("smtpd_client_connection_count_limit", "50"),
    ("smtpd_discard_ehlo_keyword_address_maps", ""),
    ("smtpd_discard_ehlo_keywords", ""),
    ("smtpd_enforce_tls", "no"),
    ("smtpd_forbidden_commands", "CONNECT GET POST regexp:{{/^[^A-Z]/ Bogus}}"),
    ("smtpd_reject_footer", ""),
    ("smtpd_reject_footer_maps", ""),
    ("smtpd_service_name", "smtpd"),
    ("smtpd_tls_cert_file", ""),
    ("smtpd_tls_chain_files", ""),
    ("smtpd_tls_eccert_file", ""),
    ("smtpd_tls_eckey_file", "$smtpd_tls_eccert_file"),
    ("smtpd_tls_key_file", "$smtpd_tls_cert_file"),
    ("smtpd_tls_security_level", ""),
    ("smtpd_use_tls", "no"),
    ("soft_bounce", "no"),
    ("stress", ""),
    ("syslog_name", "${multi_instance_name?{$multi_instance_name}:{postfix}}"),
    ("multi_instance_name", ""),
    ("tlsproxy_tls_cert_file", "$smtpd_tls_cert_file"),
    ("tlsproxy_tls_chain_files", "$smtpd_tls_chain_files"),
    ("tlsproxy_tls_eccert_file", "$smtpd_tls_eccert_file"),
    ("tlsproxy_tls_eckey_file", "$smtpd_tls_eckey_file"),
    ("tlsproxy_tls_key_file", "$smtpd_tls_key_file"),
];

/// The domain of a host that has none.
const LOCAL: &str = "localdomain";

/// The parameters.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    set: BTreeMap<String, String>,
    /// Where `main.cf` is.
    directory: String,
    /// The system's name.
    hostname: String,
    /// Names that were asked for and have no value that is known here.
    unknown: RefCell<BTreeSet<String>>,
}

impl Parameters {
    /// Reads a `main.cf`. `hostname` is the system's name.
    ///
    /// # Errors
    /// If a line is no `name = value`: Postfix would not start.
    pub fn read(text: &str, name: &str, hostname: &str) -> Result<Self, String> {
        let directory = Path::new(name).parent().unwrap_or(Path::new("")).display().to_string();
        let mut parameters = Self { directory, hostname: hostname.to_owned(), ..Self::default() };
        for line in logical(text) {
            let (key, value) = line.text.split_once('=').unwrap_or_default();
            let key = key.trim();
            if key.is_empty() || key.contains(char::is_whitespace) {
                return Err(format!(
                    "{name}:{}: '{}' is no name = value, and Postfix would not start with it: run `postfix check`",
                    line.number,
                    crate::feed::quoted(&line.text)
                ));
            }
            parameters.set(key, value.trim());
        }
        Ok(parameters)
    }

    /// Sets a parameter, as `-o` does.
    pub fn set(&mut self, name: &str, value: &str) {
        self.set.insert(name.to_owned(), value.to_owned());
    }

    /// The names that are set, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.set.keys().map(String::as_str)
    }

    /// Whether it is set, and not at Postfix's default for want of anything else.
    pub fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    /// As it is written, or Postfix's default. `None`: it has none here.
    pub fn raw(&self, name: &str) -> Option<String> {
        if let Some(value) = self.set.get(name) {
            return Some(value.clone());
        }
        if let Some((_, value)) = DEFAULTS.iter().find(|(known, _)| *known == name) {
            return Some((*value).to_owned());
        }
        match name {
            "config_directory" => Some(self.directory.clone()),
            "myhostname" if self.hostname.contains('.') => Some(self.hostname.clone()),
            "myhostname" => {
                let domain =
                    self.set.get("mydomain").map_or(Some(LOCAL.to_owned()), |text| self.without(name, text))?;
                Some(format!("{}.{domain}", self.hostname))
            }
            "mydomain" => {
                let host = self.without(name, &self.raw("myhostname")?)?;
                Some(host.split_once('.').map_or(LOCAL, |(_, domain)| domain).to_owned())
            }
            _ => None,
        }
    }

    /// A text expanded while a parameter has no value yet: of a host's name and its domain one is made of the other.
    fn without(&self, missing: &str, text: &str) -> Option<String> {
        expand::expand(text, &mut |name| (name != missing).then(|| self.raw(name)).flatten()).ok()
    }

    /// Its value, everything in it expanded.
    ///
    /// # Errors
    /// If Postfix would refuse it.
    pub fn value(&self, name: &str) -> Result<String, Fault> {
        self.expand(&self.raw(name).unwrap_or_default())
    }

    /// Its value while `stress` is on.
    ///
    /// # Errors
    /// If Postfix would refuse it.
    pub fn value_under_stress(&self, name: &str) -> Result<String, Fault> {
        let mut stressed = self.clone();
        stressed.set("stress", "yes");
        stressed.value(name)
    }

    /// A text with everything in it expanded.
    ///
    /// # Errors
    /// If Postfix would refuse it.
    pub fn expand(&self, text: &str) -> Result<String, Fault> {
        expand::expand(text, &mut |name| {
            let value = self.raw(name);
            // Names of the old spelling are looked for on purpose.
            if value.is_none() && !name.starts_with("postscreen_") {
                self.unknown.borrow_mut().insert(name.to_owned());
            }
            value
        })
    }

    /// The names that values refer to and that are neither set nor known here: Postfix's own default may stand behind them.
    pub fn unknown(&self) -> Vec<String> {
        self.unknown.borrow().iter().cloned().collect()
    }
}
