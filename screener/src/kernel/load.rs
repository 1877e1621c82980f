//! Loading: the built-in object, its maps from their pins, its two programs past the verifier.
//!
//! Never attaches anything: what is loaded here sees no packet yet.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::maps::{Array, Map, MapData, MapError};
use aya::programs::{ProgramFd, ProgramInfo, SkLookup, Xdp};
use aya::{Ebpf, EbpfLoader};
use screener_ebpf as abi;
use screener_ebpf::Settings;

use super::error::KernelError;
use super::options::Options;
use super::pin::{self, PinDirectory};

/// The kernel half, as `build.rs` compiled it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/screener.bpf.o"));

/// The log target of what the programs say; `RUST_LOG=screener_ebpf=debug` turns it on, before the start.
const LOG_TARGET: &str = "screener_ebpf";

/// The object with its maps created or taken over; programs not loaded yet.
pub(super) fn object(pin: &PinDirectory) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    for name in abi::maps::ALL {
        loader.map_pin_path(name, pin.map(name));
    }
    let level = log_level();
    loader.override_global(aya_log::LEVEL, &level, true);
    loader.load(OBJECT).map_err(|error| KernelError::load(error).explained())
}

/// The level for the programs: all or nothing. At 0 the verifier removes the statements: they cost nothing.
fn log_level() -> u8 {
    if logs_wanted() { aya_log::Level::Debug as u8 } else { 0 }
}

/// Whether anybody wants to read what the programs say.
pub(super) fn logs_wanted() -> bool {
    log::log_enabled!(target: LOG_TARGET, log::Level::Debug)
}

/// A program that the verifier has let in. It stays loaded with this, whether it is attached or not.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) id: u32,
    pub(super) fd: OwnedFd,
}

impl Program {
    fn of(name: &'static str, info: &ProgramInfo, fd: &ProgramFd) -> Result<Self, KernelError> {
        let fd = fd.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| KernelError::Attach { program: name, to: "the kernel".to_owned(), source })?;
        Ok(Self { name, id: info.id(), fd })
    }
}

/// `screen`, loaded: in the forms that this kernel takes, the best one first. Where a driver wants a program that can
/// read frames in several buffers (a large MTU), the plain form is refused; a kernel before 5.18 knows only that one.
pub(super) fn screen(object: &mut Ebpf) -> Result<Vec<Program>, KernelError> {
    let mut loaded = Vec::new();
    let mut last = None;
    for name in SCREENS {
        match object.program_mut(name).map(|program| load_screen(name, program)) {
            Some(Ok(program)) => loaded.push(program),
            Some(Err(error)) => last = Some(error),
            None => {}
        }
    }
    match last {
        // The plain form comes last: what is wrong with it is wrong with all of them.
        Some(error) if loaded.is_empty() => Err(error),
        _ if loaded.is_empty() => Err(missing(abi::programs::SCREEN)),
        _ => Ok(loaded),
    }
}

/// The forms of `screen`. An object need not have the first one.
const SCREENS: [&str; 2] = [abi::programs::SCREEN_FRAGS, abi::programs::SCREEN];

fn load_screen(name: &'static str, program: &mut aya::programs::Program) -> Result<Program, KernelError> {
    let failed = |error| KernelError::program(name, error);
    let program: &mut Xdp = program.try_into().map_err(failed)?;
    program.load().map_err(failed)?;
    Program::of(name, &program.info().map_err(failed)?, program.fd().map_err(failed)?)
}

/// `steer`, loaded.
pub(super) fn steer(object: &mut Ebpf) -> Result<Program, KernelError> {
    const NAME: &str = abi::programs::STEER;
    let failed = |error| KernelError::program(NAME, error);
    let program = object.program_mut(NAME).ok_or_else(|| missing(NAME))?;
    let program: &mut SkLookup = program.try_into().map_err(failed)?;
    program.load().map_err(failed)?;
    Program::of(NAME, &program.info().map_err(failed)?, program.fd().map_err(failed)?)
}

/// Takes a map out of the object.
pub(super) fn take<M: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    pin: &PinDirectory,
    name: &'static str,
) -> Result<M, KernelError> {
    let map = object.take_map(name).ok_or_else(|| missing(name))?;
    // An existing pin is taken as it is: that it fits shows only here.
    M::try_from(map).map_err(|_| KernelError::ForeignMap { path: pin.map(name) })
}

/// Takes a map out of an object whose maps are pinned nowhere.
#[cfg(test)]
pub(super) fn take_unpinned<M: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<M, KernelError> {
    let map = object.take_map(name).ok_or_else(|| missing(name))?;
    M::try_from(map).map_err(|_| KernelError::ForeignMap { path: name.into() })
}

/// Opens a map by its pin; `None`: nothing is pinned there.
pub(super) fn open<M: TryFrom<Map, Error = MapError>>(
    directory: &Path,
    name: &'static str,
) -> Result<Option<M>, KernelError> {
    let path = pin::map_pin(directory, name);
    if !path.exists() {
        return Ok(None);
    }
    let map =
        MapData::from_pin(&path).and_then(Map::from_map_data).map_err(|error| KernelError::map(name, 0, error))?;
    M::try_from(map).map(Some).map_err(|_| KernelError::ForeignMap { path })
}

/// Opens a map by its pin, where the maps are pinned.
pub(super) fn pinned<M: TryFrom<Map, Error = MapError>>(
    directory: &Path,
    name: &'static str,
) -> Result<M, KernelError> {
    open(directory, name)?.ok_or_else(|| KernelError::NothingPinned { path: directory.to_owned() })
}

fn missing(name: &'static str) -> KernelError {
    KernelError::Object(Box::new(aya::EbpfError::MapError(MapError::InvalidName { name: name.to_owned() })))
}

/// The settings map.
pub(super) struct SettingsMap(Array<MapData, Settings>);

impl SettingsMap {
    pub(super) fn take(object: &mut Ebpf, pin: &PinDirectory) -> Result<Self, KernelError> {
        take(object, pin, abi::maps::SETTINGS).map(Self)
    }

    /// From the pin alone.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        pinned(directory, abi::maps::SETTINGS).map(Self)
    }

    /// What stands there: from a daemon before us, or zeros.
    pub(super) fn read(&self) -> Result<Settings, KernelError> {
        self.0.get(&0, 0).map_err(|error| KernelError::map(abi::maps::SETTINGS, 1, error))
    }

    /// Changes what we say in it, and nothing else; gives back the whole. A program reads the old or the new one, at worst
    /// a mixture for one packet.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Settings)) -> Result<Settings, KernelError> {
        let mut settings = self.read()?;
        change(&mut settings);
        self.0.set(0, settings, 0).map_err(|error| KernelError::map(abi::maps::SETTINGS, 1, error))?;
        Ok(settings)
    }
}

/// The options in the form in which the programs read them, for tests that attach nothing.
#[cfg(test)]
pub(super) fn settings(options: &Options, steered: bool) -> Result<Settings, KernelError> {
    let mut settings = Settings::NOTHING;
    put_options(&mut settings, options)?;
    put_attached(&mut settings, Attached { steered, reject_early: false });
    Ok(settings)
}

/// Puts in what the options say; leaves alone what they say nothing of.
pub(super) fn put_options(settings: &mut Settings, options: &Options) -> Result<(), KernelError> {
    if options.ports.len() > abi::MAX_PORTS {
        return Err(KernelError::TooManyPorts(options.ports.len()));
    }
    settings.abi = abi::ABI_VERSION;
    settings.event_sample = options.event_sample;
    settings.ports = [[0; 2]; abi::MAX_PORTS];
    for (slot, port) in settings.ports.iter_mut().zip(&options.ports) {
        *slot = port.to_be_bytes();
    }
    let bits = u32::from(options.key_length.bits());
    settings.key_mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0).to_be_bytes();
    (settings.syn_interval_ns, settings.syn_tolerance_ns) =
        options.syn_rate.map_or((0, 0), |rate| abi::rate::parameters(rate.per_second, rate.burst));
    Ok(())
}

/// What the programs need to know about the places where they are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// `steer` stands behind `screen`.
    pub(super) steered: bool,
    /// `screen` may send refusals back by itself.
    pub(super) reject_early: bool,
}

/// Puts in where the programs are attached; what the operator has chosen stays.
pub(super) fn put_attached(settings: &mut Settings, attached: Attached) {
    settings.set(Settings::STEERED, attached.steered);
    if !settings.has(Settings::REJECT_BY_HAND) {
        settings.set(Settings::REJECT_EARLY, attached.reject_early);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `r10 = r10`: the frame pointer may not be written.
    const MISTAKE: [u8; 8] = [COPY, 0xaa, 0, 0, 0, 0, 0, 0];
    /// `BPF_ALU64 | BPF_MOV | BPF_X`
    const COPY: u8 = 0xbf;
    /// `BPF_LD | BPF_IMM | BPF_DW`, twice as long as the others.
    const LOAD_DOUBLE: u8 = 0x18;

    /// The object, with a mistake in `screen`: in the place of its first copy of a register, which no relocation touches.
    fn broken() -> Vec<u8> {
        let mut object = OBJECT.to_vec();
        let mut at = section(&object, b"xdp").unwrap();
        loop {
            match object[at] {
                COPY => break,
                LOAD_DOUBLE => at += 2 * MISTAKE.len(),
                _ => at += MISTAKE.len(),
            }
        }
        object[at..at + MISTAKE.len()].copy_from_slice(&MISTAKE);
        object
    }

    /// Where a section's bytes begin in an ELF file of 64 bits.
    fn section(elf: &[u8], name: &[u8]) -> Option<usize> {
        let word = |at: usize| Some(u64::from_ne_bytes(*elf.get(at..)?.first_chunk()?) as usize);
        let half = |at: usize| Some(usize::from(u16::from_ne_bytes(*elf.get(at..)?.first_chunk()?)));
        let header = |number| Some(word(40)? + number * half(58)?);
        let strings = word(header(half(62)?)? + 24)?;
        (0..half(60)?).find_map(|number| {
            let at = header(number)?;
            let begins = strings + u32::from_ne_bytes(*elf.get(at..)?.first_chunk()?) as usize;
            (elf.get(begins..)?.split(|&byte| byte == 0).next()? == name).then(|| word(at + 24))?
        })
    }

    #[test]
    fn what_the_verifier_refuses_is_shown_with_the_end_of_its_log() {
        let mut object = EbpfLoader::new().load(&broken()).unwrap();
        let Err(error) = load_screen(abi::programs::SCREEN, object.program_mut(abi::programs::SCREEN).unwrap()) else {
            panic!("the verifier let a broken program in")
        };
        let KernelError::Verifier { log, .. } = &error else { panic!("{error}") };
        assert!(log.contains("frame pointer is read only"), "{log}");
        assert!(log.lines().count() <= 20, "{log}");
        let text = error.to_string();
        assert!(text.starts_with("the kernel's verifier refused screen"), "{text}");
        assert!(text.contains("please report this with the kernel version"), "{text}");
    }

    #[test]
    fn options_and_places_change_their_own_part_of_the_settings_only() {
        let options = Options { ports: vec![25, 587], ..Options::default() };
        let mut settings = settings(&options, true).unwrap();
        settings.flags |= 1 << 31;
        put_attached(&mut settings, Attached { steered: false, reject_early: true });
        assert_eq!(settings.flags, 1 << 31 | Settings::REJECT_EARLY);
        put_options(&mut settings, &Options { ports: vec![2525], ..options }).unwrap();
        assert_eq!(settings.flags, 1 << 31 | Settings::REJECT_EARLY);
        assert_eq!(settings.ports[..2], [2525u16.to_be_bytes(), [0; 2]]);
        let many = Options { ports: vec![1; abi::MAX_PORTS + 1], ..Options::default() };
        assert!(matches!(put_options(&mut settings, &many), Err(KernelError::TooManyPorts(_))));
    }
}
