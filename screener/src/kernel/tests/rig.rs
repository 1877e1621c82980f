//! `screen` loaded from the built-in object and run on frames by `BPF_PROG_TEST_RUN`: no interface, no pins.

use aya::maps::{Array, PerCpuArray};
use aya::programs::{TestRun, Xdp};
use aya::{Ebpf, EbpfLoader, TestRunOptions};
use screener_ebpf::{Counter, Family, Hook, Settings, Verdict, counter_slot, maps, programs};

use crate::feed::StaticAction;
use crate::kernel::load::{self, OBJECT, settings};
use crate::kernel::options::Options;
use crate::kernel::probe::{self, Feature};
use crate::kernel::statics::{self, Statics};

pub(super) const DROP: u32 = 1;
pub(super) const PASS: u32 = 2;
pub(super) const TX: u32 = 3;

/// The XDP programs that this kernel takes: they must say the same.
pub(super) fn programs() -> Vec<&'static str> {
    let mut object = EbpfLoader::new().load(OBJECT).unwrap();
    let loaded: Vec<_> = load::screen(&mut object).unwrap().iter().map(|program| program.name).collect();
    assert!(loaded.contains(&programs::SCREEN), "{loaded:?}");
    let frags = probe::features().into_iter().find(|found| found.feature == Feature::XdpFrags).unwrap();
    assert_eq!(loaded.contains(&programs::SCREEN_FRAGS), frags.there == Some(true), "{loaded:?}, {frags:?}");
    loaded
}

/// The object, loaded, with one of its XDP programs past the verifier.
pub(super) struct Screen {
    pub(super) object: Ebpf,
    program: &'static str,
    statics: Statics,
}

impl Screen {
    pub(super) fn load() -> Self {
        Self::load_program(programs::SCREEN)
    }

    /// Ports 25 and 587 are screened; refusals are answered; `steer` counts as attached.
    pub(super) fn load_program(program: &'static str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "needs root to load BPF programs: run `cargo xtask test` as root"
        );
        let mut object = EbpfLoader::new().load(OBJECT).unwrap();
        let loaded: &mut Xdp = object.program_mut(program).unwrap().try_into().unwrap();
        loaded.load().unwrap();
        // The program keeps its maps, whoever else holds them.
        let statics = Statics::unpinned(&mut object).unwrap();
        let mut screen = Self { object, program, statics };
        let ports = vec![25, 587];
        let mut written = settings(&Options { ports, ..Options::default() }, true).unwrap();
        written.flags = Settings::STEERED | Settings::REJECT_EARLY;
        screen.write(written);
        screen
    }

    pub(super) fn settings(&self) -> Settings {
        let map: Array<_, Settings> = self.object.map(maps::SETTINGS).unwrap().try_into().unwrap();
        map.get(&0, 0).unwrap()
    }

    pub(super) fn write(&mut self, settings: Settings) {
        let mut map: Array<_, Settings> = self.object.map_mut(maps::SETTINGS).unwrap().try_into().unwrap();
        map.set(0, settings, 0).unwrap();
    }

    pub(super) fn update(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings();
        change(&mut settings);
        self.write(settings);
    }

    /// Puts an entry in: one of [`action`](screener_ebpf::action).
    pub(super) fn put(&mut self, prefix: &str, action: u8) {
        let action: StaticAction = statics::decode(action).unwrap();
        self.statics.put(prefix.parse().unwrap(), action).unwrap();
    }

    pub(super) fn program(&self) -> &Xdp {
        self.object.program(self.program).unwrap().try_into().unwrap()
    }

    pub(super) fn verdict(&self, frame: &[u8]) -> u32 {
        self.program()
            .test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })
            .unwrap()
            .return_value
    }

    /// The verdict, and the frame as the program leaves it.
    pub(super) fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; frame.len() + 64];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = self.program().test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    pub(super) fn counted(&self, family: Family, counter: Counter) -> u64 {
        self.slot(counter_slot(Hook::Screen, family, counter))
    }

    /// Everything that has been given a verdict.
    pub(super) fn all_counted(&self) -> u64 {
        let verdicts = Counter::ALL.into_iter().filter(|counter| counter.verdict() != Verdict::Note);
        verdicts.flat_map(|counter| Family::ALL.map(|family| self.counted(family, counter))).sum()
    }

    pub(super) fn slot(&self, slot: u32) -> u64 {
        let map: PerCpuArray<_, u64> = self.object.map(maps::COUNTERS).unwrap().try_into().unwrap();
        map.get(&slot, 0).unwrap().iter().sum()
    }
}
