//! Files that are renewed, in good order and in bad.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedKey, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use tempfile::TempDir;

use super::*;

const DAY: u64 = 86_400;
const NOW: UnixTime = UnixTime(1_800_000_000);

/// A pair of files, and what a test does to them.
struct Pair {
    place: TempDir,
}

impl Pair {
    fn new() -> Self {
        Self { place: tempfile::tempdir().unwrap() }
    }

    fn files(&self) -> config::Tls {
        config::Tls { certificate: self.path("cert.pem"), key: self.path("key.pem") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        // As tools do it that mean well: never half a file under its name.
        let new = self.path("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    fn install(&self, made: &CertifiedKey<KeyPair>) {
        self.write("cert.pem", &made.cert.pem());
        self.write("key.pem", &made.signing_key.serialize_pem());
    }

    fn keeper(&self) -> Arc<Keeper> {
        Arc::new(Keeper::begin(Some(&self.files()), NOW))
    }
}

/// A certificate that is good until so many days from now on.
fn made(name: &str, days: i64) -> CertifiedKey<KeyPair> {
    let signing_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = time(NOW.0 as i64 - 90 * DAY as i64);
    params.not_after = time(NOW.0 as i64 + days * DAY as i64);
    let cert = params.self_signed(&signing_key).unwrap();
    CertifiedKey { cert, signing_key }
}

fn time(unix: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(unix).unwrap()
}

fn names(keeper: &Keeper) -> Vec<String> {
    keeper.identity().map(|identity| identity.names.clone()).unwrap_or_default()
}

/// Looks as often as it takes for a change to be taken or refused.
fn looks(keeper: &Keeper) -> Option<News> {
    assert!(keeper.look(NOW).is_none(), "not at the first look");
    keeper.look(NOW)
}

#[test]
fn a_renewed_certificate_is_taken_once_its_files_stand_still() {
    let pair = Pair::new();
    pair.install(&made("old.test", 30));
    let keeper = pair.keeper();
    assert_eq!((names(&keeper), keeper.trouble()), (vec!["old.test".to_owned()], None));
    assert!(keeper.look(NOW).is_none());
    let held = keeper.identity().unwrap();
    pair.install(&made("new.test", 90));
    assert!(matches!(looks(&keeper), Some(News::Taken(_))));
    assert_eq!(names(&keeper), ["new.test"]);
    assert_eq!(held.names, ["old.test"], "a session under way keeps what it has");
    assert!(keeper.look(NOW).is_none());
}

#[test]
fn between_the_two_files_nothing_is_taken_and_nothing_is_wrong() {
    let pair = Pair::new();
    pair.install(&made("old.test", 30));
    let keeper = pair.keeper();
    let new = made("new.test", 90);
    pair.write("cert.pem", &new.cert.pem());
    assert!(keeper.look(NOW).is_none());
    pair.write("key.pem", &new.signing_key.serialize_pem());
    assert!(keeper.look(NOW).is_none());
    assert_eq!((names(&keeper), keeper.trouble()), (vec!["old.test".to_owned()], None));
    assert!(matches!(keeper.look(NOW), Some(News::Taken(_))));
    assert_eq!(names(&keeper), ["new.test"]);
}

#[test]
fn a_key_of_another_certificate_is_refused_and_the_old_pair_stays_until_it_is_mended() {
    let pair = Pair::new();
    pair.install(&made("old.test", 30));
    let keeper = pair.keeper();
    let new = made("new.test", 90);
    pair.write("cert.pem", &new.cert.pem());
    assert!(matches!(looks(&keeper), Some(News::Refused(TlsError::Mismatch { .. }))));
    assert!(keeper.look(NOW).is_none(), "told once");
    let trouble = keeper.trouble().unwrap();
    assert!(trouble.contains("does not belong to the first certificate in"), "{trouble}");
    assert_eq!(names(&keeper), ["old.test"]);
    pair.write("key.pem", &new.signing_key.serialize_pem());
    assert!(matches!(looks(&keeper), Some(News::Taken(_))));
    assert_eq!((names(&keeper), keeper.trouble()), (vec!["new.test".to_owned()], None));
}

#[test]
fn files_that_are_bad_at_the_start_are_taken_when_they_are_good() {
    let pair = Pair::new();
    let keeper = pair.keeper();
    assert!(!keeper.is_ready());
    let trouble = keeper.trouble().unwrap();
    assert!(trouble.contains("cert.pem cannot be read") && trouble.contains("put the file there"), "{trouble}");
    pair.install(&made("new.test", 90));
    assert!(matches!(looks(&keeper), Some(News::Taken(_))));
    assert!(keeper.is_ready() && keeper.trouble().is_none());
}

#[test]
fn a_file_that_becomes_readable_without_another_content_is_a_change() {
    let pair = Pair::new();
    pair.install(&made("new.test", 90));
    let keeper = pair.keeper();
    fs::set_permissions(pair.path("key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(looks(&keeper), Some(News::Taken(_))));
}

#[test]
fn an_expired_certificate_never_takes_the_place_of_a_good_one_and_is_better_than_none() {
    let pair = Pair::new();
    pair.install(&made("old.test", 30));
    let keeper = pair.keeper();
    pair.install(&made("expired.test", -1));
    assert!(matches!(looks(&keeper), Some(News::Refused(TlsError::Expired { .. }))));
    assert_eq!(names(&keeper), ["old.test"]);
    let late = pair.keeper();
    assert_eq!(names(&late), ["expired.test"]);
    let warning = late.identity().unwrap().time_warning(NOW).unwrap();
    assert!(warning.starts_with("the certificate expired on "), "{warning}");
}

#[test]
fn a_reload_keeps_the_keeper_of_the_same_files_and_refuses_other_files_that_are_bad() {
    let pair = Pair::new();
    pair.install(&made("old.test", 30));
    let keeper = pair.keeper();
    pair.write("key.pem", "nothing");
    let same = keeper.follow(Some(&pair.files()), NOW).unwrap();
    assert!(Arc::ptr_eq(&keeper, &same));
    assert!(same.trouble().is_some_and(|why| why.contains("holds no private key")), "{:?}", same.trouble());
    assert_eq!(names(&same), ["old.test"]);
    let other = config::Tls { key: pair.path("other.pem"), ..pair.files() };
    assert!(matches!(keeper.follow(Some(&other), NOW), Err(TlsError::Unreadable { .. })));
    assert!(!keeper.follow(None, NOW).unwrap().is_ready(), "without [tls] there is none");
    pair.install(&made("new.test", 90));
    keeper.follow(Some(&pair.files()), NOW).unwrap();
    assert_eq!(names(&keeper), ["new.test"], "at once, by hand");
}

#[test]
fn every_bad_file_is_told_with_what_to_do() {
    let pair = Pair::new();
    let good = made("mx.test", 90);
    let certificate = good.cert.pem();
    let key = good.signing_key.serialize_pem();
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let bad_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let unended = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for (certificate, key, said) in [
        ("", key.as_str(), "holds no certificate (-----BEGIN CERTIFICATE-----)"),
        (key.as_str(), key.as_str(), "holds no certificate"),
        (garbage, key.as_str(), "cannot be understood"),
        (unended, key.as_str(), "is no PEM file"),
        (certificate.as_str(), "", "holds no private key (-----BEGIN PRIVATE KEY-----)"),
        (certificate.as_str(), certificate.as_str(), "holds no private key"),
        (certificate.as_str(), encrypted, "has a passphrase"),
        (certificate.as_str(), bad_key, "cannot be used"),
    ] {
        pair.write("cert.pem", certificate);
        pair.write("key.pem", key);
        let trouble = pair.keeper().trouble().unwrap_or_default();
        assert!(trouble.contains(said), "{said:?} in {trouble:?}");
    }
    fs::remove_file(pair.path("cert.pem")).unwrap();
    fs::create_dir(pair.path("cert.pem")).unwrap();
    let trouble = pair.keeper().trouble().unwrap_or_default();
    assert!(trouble.contains("cert.pem cannot be read: is a directory"), "{trouble}");
}

#[test]
fn one_file_may_hold_both_and_the_key_may_be_of_any_usual_kind() {
    let pair = Pair::new();
    let signing_key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let cert = CertificateParams::new(["mx.test".to_owned()]).unwrap().self_signed(&signing_key).unwrap();
    let both = signing_key.serialize_pem() + &cert.pem();
    pair.write("cert.pem", &both);
    pair.write("key.pem", &both);
    let keeper = pair.keeper();
    assert_eq!(keeper.trouble(), None);
    assert!(keeper.identity().unwrap().covers("MX.test."));
}

#[test]
fn its_end_is_warned_of_in_time_for_its_kind() {
    let left = |whole: u64, days: u64| {
        let identity = Identity {
            not_before: UnixTime(NOW.0 - (whole - days) * DAY),
            not_after: NOW.plus(Duration::from_secs(days * DAY)),
            ..Arc::into_inner(pair_of(90)).unwrap()
        };
        identity.time_warning(NOW)
    };
    assert!(left(90, 15).is_none() && left(90, 13).is_some(), "two weeks, of three months");
    assert!(left(365, 15).is_none() && left(365, 13).is_some(), "two weeks, of a year");
    assert!(left(6, 2).is_none() && left(6, 1).is_some(), "a day and a half, of six days");
    let warning = left(90, 6).unwrap();
    assert!(warning.ends_with("in 6 days, and has not been renewed"), "{warning}");
}

#[test]
fn a_name_with_a_star_covers_one_label() {
    let identity = Identity { names: vec!["*.example.com".to_owned()], ..Arc::into_inner(pair_of(90)).unwrap() };
    assert!(
        identity.covers("mx.example.com") && !identity.covers("example.com") && !identity.covers("a.b.example.com")
    );
}

fn pair_of(days: i64) -> Arc<Identity> {
    let pair = Pair::new();
    pair.install(&made("mx.test", days));
    let keeper = Keeper::begin(Some(&pair.files()), NOW);
    let identity = keeper.identity().unwrap();
    drop(keeper);
    identity
}
