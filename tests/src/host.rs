//! A host of the lab: a network, mount and UTS namespace with private places.
//!
//! A server runs on a host with its default paths: `/etc`, `/run`, `/tmp` and `/var` are the host's own, `/sys` shows
//! its interfaces and holds a bpffs of its own, and the rest of the file system is the cell's, read-only. So two
//! Postfixes never meet. A host shares the cell's PID namespace: processes of all hosts see each other, as nothing
//! under test looks for others.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::mount_bind;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::cell::{self, KeptHost};
use crate::net::Family;
use crate::proc::{self, Proc};

/// How long [`Host::run`] gives a program.
const RUN_LIMIT: Duration = Duration::from_secs(30);

/// A host; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

/// A user that a server runs as.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Its name, and its group's.
    pub name: &'static str,
    /// Its number, and its group's: one that Debian gives to nobody (it begins with 100 and with 1000).
    pub id: u32,
    /// Its home directory.
    pub home: &'static str,
}

/// The one that every host has.
pub const ROOT: User = User { name: "root", id: 0, home: "/root" };

#[derive(Debug)]
struct Inner {
    name: String,
    addresses: Vec<IpAddr>,
    holder: Child,
    spaces: Spaces,
    root: PathBuf,
}

/// The namespaces of a host, in the order in which a process enters them.
#[derive(Debug)]
struct Spaces {
    net: OwnedFd,
    uts: OwnedFd,
    mount: OwnedFd,
}

impl Host {
    /// Makes a host without any wire; [`crate::net::Net::host`] is the way to a connected one.
    pub(crate) fn new(name: &str, addresses: &[&str]) -> Result<Self> {
        let addresses = addresses
            .iter()
            .map(|text| text.parse().with_context(|| format!("{text:?} as an address")))
            .collect::<Result<_>>()?;
        let holder = hold(name).with_context(|| format!("the namespaces of host {name}"))?;
        let spaces = Spaces::of(holder.id())?;
        let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
        let host = Self(Arc::new(Inner { name: name.to_owned(), addresses, holder, spaces, root }));
        let places = cell::directory(&format!("hosts/{name}"))?;
        host.inside(|| furnish(&places)).with_context(|| format!("the private places of host {name}"))?;
        Ok(host)
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The addresses of `eth0`.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.0.addresses
    }

    /// The first address of a family.
    #[must_use]
    pub fn first(&self, family: Family) -> Option<IpAddr> {
        let mut all = self.0.addresses.iter().copied();
        all.find(|address| Family::of(*address) == family)
    }

    /// The first address of a family.
    ///
    /// # Errors
    /// When the host has none, which is a mistake in the test's plan.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        self.first(family).with_context(|| format!("host {} has no {family} address", self.name()))
    }

    /// The process that holds the namespaces, by its number in the cell.
    #[must_use]
    pub fn holder(&self) -> u32 {
        self.0.holder.id()
    }

    /// What a kept cell tells about this host.
    #[must_use]
    pub fn kept(&self) -> KeptHost {
        KeptHost { name: self.0.name.clone(), pid: self.holder().cast_signed() }
    }

    /// A path of the host as the cell sees it: the way to read or write its files without entering it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.root.join(path.trim_start_matches('/'))
    }

    /// Reads a text file of the host.
    ///
    /// # Errors
    /// When it cannot be read. Bytes that are no UTF-8 are replaced.
    pub fn read(&self, path: &str) -> Result<String> {
        let bytes = fs::read(self.path(path)).with_context(|| format!("reading {path} on host {}", self.name()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a file of the host, and makes the directories above it.
    ///
    /// # Errors
    /// When it cannot be written: outside the private places everything is read-only.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let place = self.path(path);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("making the directory of {path} on host {}", self.name()))?;
        }
        fs::write(&place, text).with_context(|| format!("writing {path} on host {}", self.name()))
    }

    /// Writes a file that is no text, such as a mail, and gives its place in the cell.
    ///
    /// # Errors
    /// As [`Host::write`].
    pub fn write_bytes(&self, path: &str, bytes: &[u8]) -> Result<PathBuf> {
        let place = self.path(path);
        fs::write(&place, bytes).with_context(|| format!("writing {path} on host {}", self.name()))?;
        Ok(place)
    }

    /// Makes a directory that belongs to a user of the host, and those above it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn directory(&self, path: &str, owner: &User, mode: u32) -> Result<()> {
        let place = self.path(path);
        make(&place, mode)?;
        chown(&place, Some(owner.id), Some(owner.id)).with_context(|| format!("giving {path} to {}", owner.name))
    }

    /// Makes a user and a group of the same name and number, as a package does when it is installed.
    ///
    /// # Errors
    /// When the host's lists of them cannot be changed.
    pub fn add_user(&self, user: &User) -> Result<()> {
        let User { name, id, home } = user;
        for (path, line) in [
            ("/etc/passwd", format!("{name}:x:{id}:{id}::{home}:/usr/sbin/nologin\n")),
            ("/etc/group", format!("{name}:x:{id}:\n")),
        ] {
            let known = self.read(path)?;
            let others = known.lines().filter(|known| !known.starts_with(&format!("{name}:")));
            let text: String = others.map(|line| format!("{line}\n")).collect();
            self.write(path, &(text + &line))?;
        }
        Ok(())
    }

    /// Points the host's resolver at a name server.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn resolve_at(&self, server: IpAddr) -> Result<()> {
        let text = format!("nameserver {server}\noptions timeout:1 attempts:2\n");
        self.write("/etc/resolv.conf", &text)
    }

    /// A command that will run on this host, in a process group of its own, without standard input.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .env("LC_ALL", "C")
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .process_group(0);
        let host = self.clone();
        // SAFETY: entering a namespace is one system call on a descriptor that the clone keeps open; nothing is
        // allocated and no lock is taken.
        unsafe { command.pre_exec(move || Ok(host.0.spaces.enter()?)) };
        command
    }

    /// Starts a program in the background; everything it prints goes to a log of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Proc> {
        Proc::spawn(self.name(), command)
    }

    /// Runs a program to its end, which must come within 30 seconds.
    ///
    /// # Errors
    /// When it cannot be started or runs late; an exit code other than 0 is no error here.
    pub fn run(&self, command: &mut Command) -> Result<Output> {
        proc::run(command, RUN_LIMIT).with_context(|| format!("on host {}", self.name()))
    }

    /// Runs a program that must succeed, and gives what it printed.
    ///
    /// # Errors
    /// As [`Host::run`], and when the exit code is not 0.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.run(self.command(program).args(arguments))?;
        ensure!(
            output.status.success(),
            "{program} {} on host {}: {}: {}",
            arguments.join(" "),
            self.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a closure on a thread that is in the host's network namespace, for sockets: a socket stays in the namespace
    /// it was made in, wherever it is used later. Files are the cell's: see [`Host::path`].
    pub fn in_ns<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.on_thread(|| {
            let net = self.0.spaces.net.as_fd();
            move_into_link_name_space(net, Some(LinkNameSpaceType::Network))
                .with_context(|| format!("entering the network of host {}", self.name()))?;
            body()
        })
    }

    /// Runs a closure on a thread that is in all of the host's namespaces.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.on_thread(|| {
            // SAFETY: gives this new thread a working directory of its own, which entering a mount namespace requires;
            // nothing in this process relies on sharing it.
            unsafe { unshare_unsafe(UnshareFlags::FS) }.context("a directory of the thread's own")?;
            self.0.spaces.enter().with_context(|| format!("entering host {}", self.name()))?;
            body()
        })
    }

    fn on_thread<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| match scope.spawn(body).join() {
            Ok(outcome) => outcome,
            Err(panic) => resume_unwind(panic),
        })
    }
}

impl Spaces {
    fn of(process: u32) -> Result<Self> {
        let open = |kind: &str| -> Result<OwnedFd> {
            let path = format!("/proc/{process}/ns/{kind}");
            let file = fs::File::open(&path).with_context(|| format!("opening {path}"))?;
            Ok(file.into())
        };
        Ok(Self { net: open("net")?, uts: open("uts")?, mount: open("mnt")? })
    }

    /// Moves the calling thread in; safe after a fork.
    fn enter(&self) -> rustix::io::Result<()> {
        move_into_link_name_space(self.net.as_fd(), Some(LinkNameSpaceType::Network))?;
        move_into_link_name_space(self.uts.as_fd(), Some(LinkNameSpaceType::HostNameAndNISDomainName))?;
        move_into_link_name_space(self.mount.as_fd(), Some(LinkNameSpaceType::Mount))
    }
}

impl Drop for Inner {
    /// Ends the holder; the namespaces go when the last process in them does.
    fn drop(&mut self) {
        // It may have died with the cell's other processes; there is nobody to tell.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Starts the process that keeps a host's namespaces alive and gives `nsenter` something to aim at.
fn hold(name: &str) -> Result<Child> {
    let mut command = Command::new("sleep");
    let host_name = name.as_bytes().to_vec();
    command.arg0(format!("host-{name}")).arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let divide = move || {
        // SAFETY: a process with one thread after its fork shares nothing that new namespaces could change under it.
        unsafe {
            unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWUTS)?;
        }
        Ok(rustix::system::sethostname(&host_name)?)
    };
    // SAFETY: `divide` makes two system calls and allocates nothing.
    unsafe { command.pre_exec(divide) };
    command.spawn().context("starting the holder")
}

/// Makes the private places; runs on a thread inside the host.
fn furnish(places: &Path) -> Result<()> {
    let etc = places.join("etc");
    let copied = Command::new("cp").args(["-a", "/etc"]).arg(&etc).status().context("running cp")?;
    ensure!(copied.success(), "copying /etc to {}: {copied}", etc.display());
    // The machine's own may be a link to a place that is not here.
    for (name, text) in [("resolv.conf", ""), ("hosts", "127.0.0.1 localhost\n::1 localhost\n")] {
        let path = etc.join(name);
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).with_context(|| format!("replacing /etc/{name}"))?;
        }
        fs::write(&path, text).with_context(|| format!("writing /etc/{name}"))?;
    }
    make(&etc.join("screener"), 0o755)?;

    let var = places.join("var");
    for name in ["lib/screener", "log", "mail", "spool/postfix", "cache"] {
        make(&var.join(name), 0o755)?;
    }
    make(&var.join("tmp"), 0o1777)?;
    make(&var.join("lib/postfix"), 0o755)?;
    // Postfix wants to own its data directory, and has the same user here as outside.
    if let Ok(real) = fs::metadata("/var/lib/postfix") {
        use std::os::unix::fs::MetadataExt as _;
        chown(var.join("lib/postfix"), Some(real.uid()), Some(real.gid()))
            .context("giving Postfix its data directory")?;
    }
    symlink("/run", var.join("run")).context("linking /var/run")?;
    symlink("/run/lock", var.join("lock")).context("linking /var/lock")?;
    make(&places.join("run/lock"), 0o1777)?;
    make(&places.join("tmp"), 0o1777)?;

    // An executable that was built below a place must stay in reach.
    let program = env::current_exe().context("the path of this executable")?;
    for place in ["etc", "var", "run", "tmp"] {
        let target = Path::new("/").join(place);
        if program.starts_with(&target) {
            ensure!(place == "tmp", "{} hides {}", target.display(), program.display());
            continue;
        }
        mount_bind(places.join(place), &target).with_context(|| format!("a private {}", target.display()))?;
    }
    cell::system("/sys")
}

fn make(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("the mode of {}", path.display()))
}
