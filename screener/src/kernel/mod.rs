//! x
#[cfg(test)]
mod probe {
    #[test]
    fn load() {
        let object = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/screener.bpf.o"));
        for level in [0u8, 255] {
        let mut loader = aya::EbpfLoader::new();
        let mut bpf = loader.override_global("AYA_LOG_LEVEL", &level, true).load(object).unwrap();
        let p: &mut aya::programs::Xdp = bpf.program_mut("screen").unwrap().try_into().unwrap();
        if let Err(e) = p.load() { panic!("{e}"); }
        let i = p.info().unwrap();
        eprintln!("screen insns {:?} verified {:?} jit {}", i.size_translated(), i.verified_instruction_count(), i.size_jitted());
        let p: &mut aya::programs::SkLookup = bpf.program_mut("steer").unwrap().try_into().unwrap();
        if let Err(e) = p.load() { panic!("{e}"); }
        let i = p.info().unwrap();
        eprintln!("steer insns {:?} verified {:?} jit {}", i.size_translated(), i.verified_instruction_count(), i.size_jitted());
        }
    }
}
