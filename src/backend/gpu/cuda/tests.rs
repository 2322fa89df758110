//! The driver on a libcuda without a GPU (`tests/cuda_driver/fake_libcuda.c`), which puts work off as late as it may,
//! watches over handles, contexts and bounds, and fails wherever it is told to.
//!
//! A library is found by its folder when a process starts, so each test runs another of this file, with a `child_` in
//! its name, in a process of its own.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_long};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use cudarc::driver::sys;

use super::{Compiled, CudaDriver, NO_KERNELS, devices, first_usable, open, open_with};
use crate::backend::gpu::arguments::Kernel;
use crate::backend::gpu::driver::{Address, Arguments, Driver, GraphHandle, Launch, Properties};
use crate::error::Result;

/// Its folder stands here in a child.
const FOLDER: &str = "FLAMANT_FAKE_LIBCUDA";
/// Small, so that buffers run full.
const STAGING_BYTES: usize = 4096;
/// Kernels as the fake knows them: one that adds (`add` below), one that faults, and one that it does not have.
const ADDS: Kernel = Kernel::CopyPage;
const FAULTS: Kernel = Kernel::Sample;
const ABSENT: Kernel = Kernel::RandomBf16;
/// Images of the fake's: the name of the one kernel in each.
const COMPILED: Compiled = Compiled {
    modules: &[("fault", b"sample"), ("add", b"copy_page")],
    architectures: &["sm_80", "sm_90a", "compute_80"],
    release: (13, 0),
};

/// Runs a test below on a fake that is compiled with `defines`; what it prints.
fn child(test: &str, defines: &[&str], settings: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda_driver/fake_libcuda.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-o"]);
    run(compiler.arg(folder.path().join("libcuda.so")).arg(source).args(defines));
    let mut this = Command::new(std::env::current_exe().unwrap());
    this.args(["--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    this.arg(format!("{}::{test}", module_path!().split_once("::").unwrap().1));
    this.env("LD_LIBRARY_PATH", folder.path()).env(FOLDER, folder.path()).envs(settings.iter().copied());
    let output = String::from_utf8(run(&mut this).stdout).unwrap();
    assert!(output.contains("1 passed"), "{test}: {output}");
    output
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let [said, complained] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{complained}", output.status);
    output
}

fn is_child() -> bool {
    std::env::var_os(FOLDER).is_some()
}

/// The fake's own functions.
struct Fake {
    arm: extern "C" fn(c_long, i32),
    calls: extern "C" fn() -> c_long,
    live: extern "C" fn() -> c_long,
    misuse: extern "C" fn() -> *const c_char,
    depth: extern "C" fn() -> c_long,
    current: extern "C" fn() -> c_long,
    enter_host: extern "C" fn(),
    leave: extern "C" fn(),
}

impl Fake {
    fn get() -> &'static Fake {
        static FAKE: OnceLock<Fake> = OnceLock::new();
        FAKE.get_or_init(|| {
            // SAFETY: the library is the fake, since only children come here.
            let library = unsafe { sys::culib() };
            // SAFETY: the signatures are those of its source.
            unsafe {
                Fake {
                    arm: *library.get("fake_arm").unwrap(),
                    calls: *library.get("fake_calls").unwrap(),
                    live: *library.get("fake_live").unwrap(),
                    misuse: *library.get("fake_misuse").unwrap(),
                    depth: *library.get("fake_depth").unwrap(),
                    current: *library.get("fake_current").unwrap(),
                    enter_host: *library.get("fake_enter_host").unwrap(),
                    leave: *library.get("fake_leave").unwrap(),
                }
            }
        })
    }

    /// Nothing is left, and nothing was done that must not be.
    fn check(&self, context: &str) {
        // SAFETY: a text that lives as long as the library.
        let misuse = unsafe { CStr::from_ptr((self.misuse)()) }.to_str().unwrap();
        assert_eq!(misuse, "", "{context}");
        assert_eq!((self.live)(), 0, "{context}: something was not given back");
    }
}

/// What `call` returns, which leaves the contexts of this thread as they were.
fn undisturbed<T>(call: impl FnOnce() -> T) -> T {
    let fake = Fake::get();
    let contexts = || ((fake.depth)(), (fake.current)());
    let before = contexts();
    let result = call();
    assert_eq!(contexts(), before, "contexts of this thread, and the uppermost");
    result
}

/// A driver each of whose calls is held to that.
struct Watched(CudaDriver);

impl Watched {
    fn open(index: usize) -> Result<Watched> {
        undisturbed(|| open_with(index, &COMPILED, STAGING_BYTES)).map(Watched)
    }
}

impl Driver for Watched {
    fn properties(&self) -> &Properties {
        self.0.properties()
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address> {
        undisturbed(|| self.0.allocate(bytes))
    }

    fn free(&mut self, address: Address) {
        undisturbed(|| self.0.free(address));
    }

    fn copy_in(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        undisturbed(|| self.0.copy_in(to, bytes))
    }

    fn copy_out(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        undisturbed(|| self.0.copy_out(from, bytes))
    }

    fn clear(&mut self, address: Address, bytes: u64) -> Result<()> {
        undisturbed(|| self.0.clear(address, bytes))
    }

    fn staging_bytes(&self) -> usize {
        self.0.staging_bytes()
    }

    fn upload(&mut self, to: Address, fill: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<()> {
        undisturbed(|| self.0.upload(to, fill))
    }

    fn admits(&mut self, launch: &Launch) -> Result<bool> {
        undisturbed(|| self.0.admits(launch))
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        undisturbed(|| self.0.launch(launch))
    }

    fn capture(&mut self, launches: &[Launch]) -> Result<Option<GraphHandle>> {
        undisturbed(|| self.0.capture(launches))
    }

    fn replay(&mut self, graph: GraphHandle) -> Result<bool> {
        undisturbed(|| self.0.replay(graph))
    }

    fn drop_graph(&mut self, graph: GraphHandle) {
        undisturbed(|| self.0.drop_graph(graph));
    }

    fn start_clock(&mut self) -> Result<()> {
        undisturbed(|| self.0.start_clock())
    }

    fn stop_clock(&mut self) -> Result<f64> {
        undisturbed(|| self.0.stop_clock())
    }

    fn synchronize(&mut self) -> Result<()> {
        undisturbed(|| self.0.synchronize())
    }
}

/// A launch of the fake's kernel: `to[i] = from[i] + add`.
fn add(to: Address, from: Address, bytes: u32, add: u32) -> Launch {
    let arguments = Arguments::new(&[to.0, from.0, u64::from(bytes) | u64::from(add) << 32]);
    Launch { kernel: ADDS, grid: [1, 2, 3], threads: 32, shared_bytes: 0, cooperative: false, arguments }
}

/// Everything a driver can do, with its results checked.
fn exercise(driver: &mut Watched) -> Result<()> {
    let bytes = 3 * STAGING_BYTES + 5;
    let (a, b) = (driver.allocate(bytes as u64)?, driver.allocate(bytes as u64)?);
    let outcome = exercise_on(driver, a, b, bytes);
    driver.free(a);
    // The other is left to the driver itself.
    outcome
}

fn exercise_on(driver: &mut Watched, a: Address, b: Address, bytes: usize) -> Result<()> {
    let pattern: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    let mut read = vec![0; bytes];
    // One large piece, and it comes back.
    driver.copy_in(a, &pattern)?;
    driver.copy_out(a, &mut read)?;
    assert!(read == pattern, "what was written");
    // Many small pieces without anyone waiting: more than all buffers hold.
    driver.clear(b, bytes as u64)?;
    let piece = 700;
    for (number, part) in pattern.chunks(piece).enumerate() {
        driver.copy_in(b.plus((number * piece) as u64), part)?;
    }
    driver.copy_out(b, &mut read)?;
    assert!(read == pattern, "what was written");
    // Uploads, which fill buffers in turn, between small pieces.
    driver.clear(a, bytes as u64)?;
    driver.copy_in(a, &[9; 3])?;
    for part in pattern.chunks(STAGING_BYTES) {
        let at = part.as_ptr() as u64 - pattern.as_ptr() as u64;
        driver.upload(a.plus(at), &mut |staged| {
            assert_eq!(staged.len(), STAGING_BYTES);
            staged[..part.len()].copy_from_slice(part);
            Ok(part.len())
        })?;
    }
    driver.copy_in(a, &pattern[..3])?;
    driver.synchronize()?;
    driver.copy_out(a, &mut read)?;
    assert!(read == pattern, "what was written");
    // Kernels in order with copies; one with much shared memory, one cooperative where it may be.
    let size = 100;
    driver.launch(&add(b, a, size, 1))?;
    driver.launch(&Launch { shared_bytes: 99 * 1024, ..add(b, b, size, 1) })?;
    let together = Launch { cooperative: true, ..add(b, b, size, 1) };
    let cooperative = driver.admits(&together)?;
    driver.launch(&Launch { cooperative, ..together })?;
    let mut read = vec![0; size as usize];
    driver.copy_out(b, &mut read)?;
    assert!(read.iter().zip(&pattern).all(|(read, was)| *read == was + 3));
    // Captured kernels run when they are replayed, and not before. Where the device does not, they are started.
    let sequence = [add(b, b, size, 1), add(b, b, size, 1)];
    let mut kept = Vec::new();
    for round in 0..2 {
        let graph = driver.capture(&sequence)?;
        driver.copy_in(b, &[round; 100])?;
        for _ in 0..2 {
            let replayed = match graph {
                Some(graph) => driver.replay(graph)?,
                None => false,
            };
            if !replayed {
                sequence.iter().try_for_each(|launch| driver.launch(launch))?;
            }
        }
        driver.copy_out(b, &mut read)?;
        assert_eq!(read, [round + 4; 100]);
        if let (0, Some(graph)) = (round, graph) {
            driver.drop_graph(graph);
        }
        kept.push(graph);
    }
    assert!(kept[0] == kept[1] || kept.contains(&None), "its number is used again");
    driver.start_clock()?;
    driver.launch(&add(b, a, size, 1))?;
    assert_eq!(driver.stop_clock()?, 0.0015);
    Ok(())
}

/// Two drivers on two GPUs, used in turn, and from another thread.
fn sequence() -> (Vec<Watched>, Result<()>) {
    let mut drivers = Vec::new();
    if let Err(error) = undisturbed(|| devices(&COMPILED)) {
        return (drivers, Err(error));
    }
    for index in 0..2 {
        match Watched::open(index) {
            Ok(driver) => drivers.push(driver),
            Err(error) => return (drivers, Err(error)),
        }
    }
    let outcome = drivers.iter_mut().try_for_each(exercise);
    (drivers, outcome)
}

#[test]
fn everything_works_and_any_call_may_fail() {
    child("child_any_call_may_fail", &[], &[]);
}

#[test]
#[ignore = "a child of everything_works_and_any_call_may_fail"]
fn child_any_call_may_fail() {
    if !is_child() {
        return;
    }
    // The program that we are part of has a context of its own on this thread, and none on the other.
    let fake = Fake::get();
    (fake.enter_host)();
    let (drivers, outcome) = sequence();
    outcome.unwrap();
    let elsewhere = std::thread::spawn(|| {
        let mut drivers = drivers;
        drivers.iter_mut().try_for_each(exercise)
    });
    elsewhere.join().unwrap().unwrap();
    fake.check("all is well");
    // Refused, no memory, a fault of the device, and a number that no binding knows.
    for status in [1, 2, 700, 12345] {
        let mut failed = 0;
        for at in 1.. {
            (fake.arm)(at, status);
            let context = format!("call {at} fails with {status}");
            let (mut drivers, outcome) = sequence();
            let reached = (fake.calls)() >= at;
            match &outcome {
                Ok(()) => assert!(!reached || drivers.len() == 2, "{context}"),
                Err(error) => {
                    failed += 1;
                    let line = error.to_string();
                    assert!(
                        line.starts_with("cuda") && !line.contains('\n') && !line.contains("0x"),
                        "{context}: {line}"
                    );
                    drivers.iter_mut().for_each(|driver| after(driver, &line, &context));
                }
            }
            undisturbed(|| drop(drivers));
            fake.check(&context);
            if !reached {
                break;
            }
        }
        assert!(failed > 200, "{failed} calls failed with {status}");
    }
    (fake.leave)();
    assert_eq!((fake.depth)(), 0);
}

/// A driver that lost its device says the same to everything; any other goes on.
fn after(driver: &mut Watched, line: &str, context: &str) {
    if !driver.0.context.is_lost() {
        exercise(driver).unwrap_or_else(|error| panic!("{context}: {line}, and later {error}"));
        return;
    }
    let somewhere = Address::NULL;
    let outcomes = [
        driver.allocate(1).map(|_| ()),
        driver.copy_in(somewhere, &[1]),
        driver.copy_out(somewhere, &mut [1]),
        driver.clear(somewhere, 1),
        driver.upload(somewhere, &mut |_| Ok(1)),
        driver.launch(&add(somewhere, somewhere, 1, 1)),
        driver.capture(&[add(somewhere, somewhere, 1, 1)]).map(|_| ()),
        driver.synchronize(),
        driver.start_clock(),
    ];
    for outcome in outcomes {
        assert_eq!(outcome.unwrap_err().to_string(), line, "{context}");
    }
}

#[test]
fn a_kernel_that_faults_loses_the_device() {
    child("child_a_kernel_that_faults", &[], &[]);
}

#[test]
#[ignore = "a child of a_kernel_that_faults_loses_the_device"]
fn child_a_kernel_that_faults() {
    if !is_child() {
        return;
    }
    let mut drivers = [0, 1].map(|index| Watched::open(index).unwrap());
    let fault = Launch { kernel: FAULTS, ..add(Address::NULL, Address::NULL, 1, 1) };
    drivers[0].launch(&fault).unwrap();
    let line = drivers[0].synchronize().unwrap_err().to_string();
    let told =
        "cuda:0: waiting for the device: CUDA_ERROR_ILLEGAL_ADDRESS (a fake error); the device is lost to this process";
    assert_eq!(line, told);
    after(&mut drivers[0], &line, "a fault");
    exercise(&mut drivers[1]).unwrap();
    drop(drivers);
    Fake::get().check("a fault");
}

#[test]
fn refusals_say_what_was_wanted_and_found() {
    child("child_refusals", &[], &[]);
}

#[test]
#[ignore = "a child of refusals_say_what_was_wanted_and_found"]
fn child_refusals() {
    if !is_child() {
        return;
    }
    let told = |outcome: Result<CudaDriver>| outcome.err().unwrap().to_string();
    assert_eq!(told(open(2, &COMPILED)), "cuda:2: there are 2 devices, numbers from 0");
    let without = Compiled { modules: &[], architectures: &[], release: (0, 0) };
    assert_eq!(told(open(0, &without)), format!("cuda:0: Fake GPU 0: {NO_KERNELS}"));
    let mut driver = Watched::open(1).unwrap();
    assert_eq!(driver.properties().name, "Fake GPU 1");
    driver.allocate(1 << 20).unwrap();
    assert_eq!(
        driver.allocate(1 << 30).unwrap_err().to_string(),
        "cuda:1: out of memory: 1073741824 bytes wanted, 66060288 of 67108864 are free"
    );
    let good = add(Address::NULL, Address::NULL, 0, 0);
    let absent = Launch { kernel: ABSENT, ..good.clone() };
    assert_eq!(driver.launch(&absent).unwrap_err().to_string(), "cuda:1: kernel random_bf16 is not in this build");
    let short = Launch { arguments: Arguments::new(&[0u64; 2]), ..good.clone() };
    assert_eq!(
        driver.launch(&short).unwrap_err().to_string(),
        "cuda:1: kernel copy_page takes 24 bytes of arguments, not 16"
    );
    let large = Launch { threads: 2048, ..good };
    assert_eq!(
        driver.launch(&large).unwrap_err().to_string(),
        "cuda:1: kernel copy_page of 1 x 2 x 3 blocks, 2048 threads, 0 bytes shared: CUDA_ERROR_INVALID_VALUE (a fake error)"
    );
    assert_eq!(driver.capture(&[large]).unwrap(), None);
    exercise(&mut driver).unwrap();
    drop(driver);
    Fake::get().check("refusals");
}

#[test]
fn a_capture_that_fails_costs_nothing() {
    child("child_a_capture_that_fails", &[], &[]);
}

#[test]
#[ignore = "a child of a_capture_that_fails_costs_nothing"]
fn child_a_capture_that_fails() {
    if !is_child() {
        return;
    }
    let fake = Fake::get();
    (fake.enter_host)();
    let mut driver = Watched::open(0).unwrap();
    let memory = driver.allocate(100).unwrap();
    let sequence = [add(memory, memory, 100, 1), add(memory, memory, 100, 2)];
    driver.copy_in(memory, &[0; 100]).unwrap();
    sequence.iter().for_each(|launch| driver.launch(launch).unwrap());
    let mut so_far = 3;
    // Refused, no memory, not supported, a capture that came to nothing, and a number that no binding knows.
    for status in [1, 2, 801, 901, 12345] {
        let mut failed = 0;
        for at in 1.. {
            let context = format!("call {at} of a capture fails with {status}");
            (fake.arm)(at, status);
            let graph = driver.capture(&sequence).unwrap_or_else(|error| panic!("{context}: {error}"));
            if (fake.calls)() < at {
                break;
            }
            failed += u32::from(graph.is_none());
            // Its kernels have not run; the stream takes them, and other captures.
            sequence.iter().for_each(|launch| driver.launch(launch).unwrap());
            let whole = driver.capture(&sequence).unwrap().expect("nothing fails");
            assert!(driver.replay(whole).unwrap(), "{context}");
            [Some(whole), graph].into_iter().flatten().for_each(|graph| driver.drop_graph(graph));
            so_far += 6;
            let mut read = [0; 100];
            driver.copy_out(memory, &mut read).unwrap();
            assert_eq!(read, [so_far as u8; 100], "{context}");
        }
        // To begin, each of two launches, to end, to make it ready; and what stands around each of these and graphs.
        assert!(failed >= 8, "{failed} captures failed with {status}");
    }
    (fake.arm)(0, 0);
    // A replay that is refused has started nothing.
    let graph = driver.capture(&sequence).unwrap().unwrap();
    (fake.arm)(2, 2);
    assert!(!driver.replay(graph).unwrap());
    assert!(driver.replay(graph).unwrap());
    let mut read = [0; 100];
    driver.copy_out(memory, &mut read).unwrap();
    assert_eq!(read, [(so_far + 3) as u8; 100]);
    undisturbed(|| drop(driver));
    fake.check("captures");
}

/// The lines that a child says.
fn said(test: &str, settings: &[(&str, &str)], defines: &[&str]) -> String {
    let output = child(test, defines, settings);
    let said: Vec<&str> = output.lines().filter_map(|line| line.split_once("said: ")).map(|(_, said)| said).collect();
    said.join("\n")
}

#[test]
fn blocks_wait_for_each_other_only_where_they_may() {
    let said = |setting| said("child_cooperative", &[setting], &[]);
    assert_eq!(said(("FAKE_CUDA_OCCUPANCY", "1")), "true, admitted true, Ok, true, admitted true");
    assert_eq!(said(("FAKE_CUDA_OCCUPANCY", "0")), "true, admitted false");
    assert_eq!(said(("FAKE_CUDA_COOPERATIVE", "0")), "false, admitted false");
    for (status, name) in [("720", "COOPERATIVE_LAUNCH_TOO_LARGE"), ("801", "NOT_SUPPORTED")] {
        let refused = format!(
            "true, admitted true, cuda:0: kernel copy_page of 1 x 2 x 3 blocks, 32 threads, 0 bytes shared: \
             CUDA_ERROR_{name} (a fake error), false, admitted false"
        );
        assert_eq!(said(("FAKE_CUDA_COOPERATIVE_STATUS", status)), refused);
    }
    // Any other trouble says nothing of cooperative launches.
    assert!(said(("FAKE_CUDA_COOPERATIVE_STATUS", "2")).ends_with("(a fake error), true, admitted true"));
}

#[test]
#[ignore = "a child of blocks_wait_for_each_other_only_where_they_may"]
fn child_cooperative() {
    if !is_child() {
        return;
    }
    let mut driver = Watched::open(0).unwrap();
    let nothing = Launch { cooperative: true, ..add(Address::NULL, Address::NULL, 0, 0) };
    // More than its multiprocessors is too much for any.
    assert!(!driver.admits(&Launch { grid: [8, 1, 1], ..nothing.clone() }).unwrap());
    let may = |driver: &mut Watched| {
        let admitted = driver.admits(&nothing).unwrap();
        (admitted, format!("{}, admitted {admitted}", driver.properties().cooperative))
    };
    let (admitted, mut line) = may(&mut driver);
    if admitted {
        let outcome = driver.launch(&nothing).map_or_else(|error| error.to_string(), |()| "Ok".into());
        line = format!("{line}, {outcome}, {}", may(&mut driver).1);
    }
    println!("\nsaid: {line}");
    if driver.properties().cooperative && line.contains("error") {
        return;
    }
    exercise(&mut driver).unwrap();
    drop(driver);
    Fake::get().check("cooperative launches");
}

#[test]
fn devices_are_found_or_it_is_said_why_not() {
    let found = |settings: &[(&str, &str)], defines: &[&str]| said("child_devices", settings, defines);
    let two = found(&[], &[]);
    assert!(two.contains("Fake GPU 0 (9, 0) Some(67108864) Ok(\"sm_90a\")"), "{two}");
    assert!(two.contains("usable: Some(Ok(0))"), "{two}");
    assert!(two.contains("Fake GPU 1 (9, 0) Some(67108864) Ok(\"sm_90a\")"), "{two}");
    let old = found(&[("FAKE_CUDA_CAPABILITY", "75")], &[]);
    assert!(old.contains("Err(\"compute capability 7.5, the kernels need 8.0\")"), "{old}");
    assert!(old.contains("cuda:0: Fake GPU 0: compute capability 7.5, the kernels need 8.0"), "{old}");
    let none = found(&[("FAKE_CUDA_DEVICES", "0")], &[]);
    assert!(none.contains("cuda: the NVIDIA driver sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES"), "{none}");
    let old = found(&[("FAKE_CUDA_VERSION", "11040")], &[]);
    assert!(old.contains("cuda: the NVIDIA driver is too old (for CUDA 11.4, 12.0 is the least): update it"), "{old}");
    // What compiled the kernels asks for more than we do.
    let old = found(&[("FAKE_CUDA_VERSION", "12080")], &[]);
    let too_old =
        "the NVIDIA driver is too old for the kernels, by nvcc 13.0 (for CUDA 12.8, 13.0 is the least): update it";
    assert!(old.contains(&format!("Fake GPU 1 (9, 0) Some(67108864) Err(\"{too_old}\")")), "{old}");
    assert!(old.contains(&format!("usable: Some(Err(\"cuda:0: {too_old}\"))")), "{old}");
    assert!(old.contains(&format!("cuda:0: Fake GPU 0: {too_old}")), "{old}");
    let old = found(&[], &["-DWITHOUT_GRAPHS"]);
    assert!(old.contains("cuda: the NVIDIA driver is too old (it lacks cuGraphLaunch): update it"), "{old}");
    // What only newer drivers can tell is not needed.
    let older = found(&[], &["-DWITHOUT_PARAMETER_INFO"]);
    assert!(older.contains("opened"), "{older}");
}

#[test]
#[ignore = "a child of devices_are_found_or_it_is_said_why_not"]
fn child_devices() {
    if !is_child() {
        return;
    }
    println!();
    (Fake::get().enter_host)();
    println!("said: usable: {:?}", undisturbed(|| first_usable(&COMPILED)));
    match undisturbed(|| devices(&COMPILED)) {
        Ok(found) => {
            for gpu in found {
                println!("said: {} {:?} {:?} {:?}", gpu.name, gpu.compute_capability, gpu.memory_free, gpu.kernels);
            }
        }
        Err(error) => println!("said: {error}"),
    }
    match Watched::open(0) {
        Ok(mut driver) => exercise(&mut driver).map(|()| println!("said: opened")).unwrap(),
        Err(error) => println!("said: {error}"),
    }
}

#[test]
fn without_a_driver_there_is_one_line() {
    // Where there is one, this is the answer to a number that no GPU has.
    let line = open(1000, &COMPILED).err().unwrap().to_string();
    assert!(line.starts_with("cuda") && !line.contains('\n'), "{line}");
}
