//! The driver on a libcuda without a GPU (`tests/cuda_driver/fake_libcuda.c`), which puts work off as late as it may,
//! watches over handles, contexts and bounds, and fails wherever it is told to.
//!
//! A library is found by its folder when a process starts, so each test runs another of this file, with a `child_` in
//! its name, in a process of its own.

use std::ffi::{CStr, c_char, c_long};
use std::path::Path;
use std::process::{Command, Output};

use cudarc::driver::sys;

use super::{CudaDriver, devices, open, open_with};
use crate::backend::kernels::driver::{Address, Arguments, Driver, Launch};
use crate::error::Result;

/// Its folder stands here in a child.
const FOLDER: &str = "FLAMANT_FAKE_LIBCUDA";
/// Small, so that buffers run full.
const STAGING_BYTES: usize = 4096;
/// Images of the fake's: the name of the one kernel in each.
const MODULES: &[(&str, &[u8])] = &[("fault", b"fault"), ("add", b"add")];
const ARCHITECTURES: &[&str] = &["sm_80", "sm_90a", "compute_80"];

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
}

impl Fake {
    fn get() -> Fake {
        // SAFETY: the library is the fake, since only children come here.
        let library = unsafe { sys::culib() };
        Fake {
            // SAFETY: the signatures are those of its source.
            arm: *unsafe { library.get("fake_arm") }.unwrap(),
            // SAFETY: as above.
            calls: *unsafe { library.get("fake_calls") }.unwrap(),
            // SAFETY: as above.
            live: *unsafe { library.get("fake_live") }.unwrap(),
            // SAFETY: as above.
            misuse: *unsafe { library.get("fake_misuse") }.unwrap(),
        }
    }

    /// Nothing is left, and nothing was done that must not be.
    fn check(&self, context: &str) {
        // SAFETY: a text that lives as long as the library.
        let misuse = unsafe { CStr::from_ptr((self.misuse)()) }.to_str().unwrap();
        assert_eq!(misuse, "", "{context}");
        assert_eq!((self.live)(), 0, "{context}: something was not given back");
    }
}

/// A launch of the fake's kernel: `to[i] = from[i] + add`.
fn add(to: Address, from: Address, bytes: u32, add: u32) -> Launch {
    let arguments = Arguments::new(&[to.0, from.0, u64::from(bytes) | u64::from(add) << 32]);
    Launch { kernel: "add", grid: [1, 2, 3], threads: 32, shared_bytes: 0, cooperative: false, arguments }
}

/// Everything a driver can do, with its results checked.
fn exercise(driver: &mut CudaDriver) -> Result<()> {
    let bytes = 3 * STAGING_BYTES + 5;
    let (a, b) = (driver.allocate(bytes as u64)?, driver.allocate(bytes as u64)?);
    let outcome = exercise_on(driver, a, b, bytes);
    driver.free(a);
    // The other is left to the driver itself.
    outcome
}

fn exercise_on(driver: &mut CudaDriver, a: Address, b: Address, bytes: usize) -> Result<()> {
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
    // Kernels in order with copies; one with much shared memory, one cooperative.
    let size = 100;
    driver.launch(&add(b, a, size, 1))?;
    driver.launch(&Launch { shared_bytes: 99 * 1024, ..add(b, b, size, 1) })?;
    driver.launch(&Launch { cooperative: true, ..add(b, b, size, 1) })?;
    let mut read = vec![0; size as usize];
    driver.copy_out(b, &mut read)?;
    assert!(read.iter().zip(&pattern).all(|(read, was)| *read == was + 3));
    // Captured kernels run when they are replayed, and not before.
    let sequence = [add(b, b, size, 1), add(b, b, size, 1)];
    let mut kept = Vec::new();
    for round in 0..2 {
        let Some(captured) = driver.capture(&sequence)? else { return Ok(()) };
        driver.copy_in(b, &[round; 100])?;
        driver.replay(captured)?;
        driver.replay(captured)?;
        driver.copy_out(b, &mut read)?;
        assert_eq!(read, [round + 4; 100]);
        if round == 0 {
            driver.forget(captured);
        }
        kept.push(captured);
    }
    assert_eq!(kept[0], kept[1], "its number is used again");
    driver.start_clock()?;
    driver.launch(&add(b, a, size, 1))?;
    assert_eq!(driver.stop_clock()?, 0.0015);
    Ok(())
}

/// Two drivers on two GPUs, used in turn, and from another thread.
fn sequence() -> (Vec<CudaDriver>, Result<()>) {
    let mut drivers = Vec::new();
    for index in 0..2 {
        match open_with(index, MODULES, STAGING_BYTES) {
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
    let (drivers, outcome) = sequence();
    outcome.unwrap();
    let elsewhere = std::thread::spawn(|| {
        let mut drivers = drivers;
        drivers.iter_mut().try_for_each(exercise)
    });
    elsewhere.join().unwrap().unwrap();
    let fake = Fake::get();
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
            drop(drivers);
            fake.check(&context);
            if !reached {
                break;
            }
        }
        assert!(failed > 200, "{failed} calls failed with {status}");
    }
}

/// A driver that lost its device says the same to everything; any other goes on.
fn after(driver: &mut CudaDriver, line: &str, context: &str) {
    if !driver.context.is_lost() {
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
    let mut drivers = [0, 1].map(|index| open_with(index, MODULES, STAGING_BYTES).unwrap());
    let fault = Launch { kernel: "fault", ..add(Address::NULL, Address::NULL, 1, 1) };
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
    assert_eq!(told(open(2, MODULES)), "cuda:2: there are 2 devices, numbers from 0");
    assert_eq!(told(open(0, &[])), format!("cuda:0: {}", super::NO_KERNELS));
    let mut driver = open_with(1, MODULES, STAGING_BYTES).unwrap();
    assert_eq!(driver.properties().name, "Fake GPU 1");
    driver.allocate(1 << 20).unwrap();
    assert_eq!(
        driver.allocate(1 << 30).unwrap_err().to_string(),
        "cuda:1: out of memory: 1073741824 bytes wanted, 66060288 of 67108864 are free"
    );
    let good = add(Address::NULL, Address::NULL, 0, 0);
    let absent = Launch { kernel: "absent", ..good.clone() };
    assert_eq!(driver.launch(&absent).unwrap_err().to_string(), "cuda:1: kernel absent is not in this build");
    let short = Launch { arguments: Arguments::new(&[0u64; 2]), ..good.clone() };
    assert_eq!(
        driver.launch(&short).unwrap_err().to_string(),
        "cuda:1: kernel add takes 24 bytes of arguments, not 16"
    );
    let large = Launch { threads: 2048, ..good };
    assert_eq!(
        driver.launch(&large).unwrap_err().to_string(),
        "cuda:1: kernel add of 1 x 2 x 3 blocks, 2048 threads, 0 bytes shared: CUDA_ERROR_INVALID_VALUE (a fake error)"
    );
    assert!(driver.capture(&[large]).is_err());
    exercise(&mut driver).unwrap();
    drop(driver);
    Fake::get().check("refusals");
}

#[test]
fn devices_are_found_or_it_is_said_why_not() {
    let found = |settings: &[(&str, &str)], defines: &[&str]| {
        let output = child("child_devices", defines, settings);
        let said: Vec<&str> =
            output.lines().filter_map(|line| line.split_once("said: ")).map(|(_, said)| said).collect();
        said.join("\n")
    };
    let two = found(&[], &[]);
    assert!(two.contains("Fake GPU 0 (9, 0) Some(67108864) Ok(\"sm_90a\")"), "{two}");
    assert!(two.contains("Fake GPU 1 (9, 0) Some(67108864) Ok(\"sm_90a\")"), "{two}");
    let old = found(&[("FAKE_CUDA_CAPABILITY", "75")], &[]);
    assert!(old.contains("Err(\"compute capability 7.5, the kernels need 8.0\")"), "{old}");
    assert!(old.contains("cuda:0: Fake GPU 0: compute capability 7.5, the kernels need 8.0"), "{old}");
    let none = found(&[("FAKE_CUDA_DEVICES", "0")], &[]);
    assert!(none.contains("cuda: the NVIDIA driver sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES"), "{none}");
    let old = found(&[("FAKE_CUDA_VERSION", "11040")], &[]);
    assert!(old.contains("cuda: the NVIDIA driver is too old (for CUDA 11.4, 12.0 is the least): update it"), "{old}");
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
    match devices(ARCHITECTURES) {
        Ok(found) => {
            for gpu in found {
                println!("said: {} {:?} {:?} {:?}", gpu.name, gpu.compute_capability, gpu.memory_free, gpu.kernels);
            }
        }
        Err(error) => println!("said: {error}"),
    }
    match open_with(0, MODULES, STAGING_BYTES) {
        Ok(mut driver) => exercise(&mut driver).map(|()| println!("said: opened")).unwrap(),
        Err(error) => println!("said: {error}"),
    }
}

#[test]
fn without_a_driver_there_is_one_line() {
    // Where there is one, this is the answer to a number that no GPU has.
    let line = open(1000, MODULES).err().unwrap().to_string();
    assert!(line.starts_with("cuda") && !line.contains('\n'), "{line}");
}
