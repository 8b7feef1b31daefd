//! U-Boot as a client: the board `qemu_arm` of Debian's package `u-boot-qemu` under
//! `qemu-system-arm`, without a kernel that helps (TCG), spoken to over its serial console.

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anycast_labs::{Netns, Proc, eventually, require};

use super::capture::Capture;
use super::clients::GIVE_UP;
use super::{PATIENCE, SERVICE};

/// What this U-Boot asks for.
pub(crate) const BLKSIZE: usize = 1468;
/// The firmware, and what brings it and the machine.
const FIRMWARE: &str = "/usr/lib/u-boot/qemu_arm/u-boot.bin";
const PACKAGES: &str = "qemu-system-arm u-boot-qemu";
/// Where in the machine's memory the file goes.
const ADDRESS: usize = 0x4200_0000;
const PROMPT: &str = "=> ";
/// How long the console is listened to before something else is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Whether it can run here, or one line that says what is missing.
pub(crate) fn available() -> Result<(), String> {
    let machine = require("qemu-system-arm", &[], "qemu-system-arm");
    if machine.is_err() || !Path::new(FIRMWARE).is_file() {
        return Err(format!(
            "U-Boot is not among the clients: apt-get install --no-install-recommends {PACKAGES}"
        ));
    }
    let tap = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    tap.map(drop)
        .map_err(|error| format!("U-Boot is not among the clients: /dev/net/tun: {error}"))
}

pub(crate) struct Uboot {
    machine: Mutex<Machine>,
}

struct Machine {
    process: Proc,
    console: UnixStream,
}

impl Uboot {
    /// At its prompt, with an address behind this namespace. Frozen, since a U-Boot that has nothing
    /// to do keeps a processor busy.
    pub(crate) fn start(namespace: &Netns, folder: &Path, number: usize) -> Self {
        namespace.forward().unwrap();
        namespace.run("ip tuntap add dev tap0 mode tap").unwrap();
        namespace
            .address("tap0", &format!("10.41.{number}.1/24"))
            .unwrap();
        namespace.up("tap0").unwrap();
        let socket = folder.join("console");
        let mut command = Command::new("qemu-system-arm");
        command.args(["-M", "virt", "-cpu", "cortex-a15"]);
        command.args(["-m", "256", "-display", "none", "-monitor", "none"]);
        command.args(["-bios", FIRMWARE]);
        command.args(["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"]);
        command.args(["-device", "virtio-net-device,netdev=net"]);
        command.arg("-serial");
        command.arg(format!("unix:{},server=on,wait=on", socket.display()));
        let name = format!("{}-qemu", namespace.name());
        let process = Proc::start(namespace, &name, &mut command).unwrap();
        let mut console = None;
        eventually(PATIENCE, "qemu to open the console", || {
            console = UnixStream::connect(&socket).ok();
            console.is_some()
        })
        .unwrap();
        let console = console.unwrap();
        console.set_read_timeout(Some(LOOK)).unwrap();
        let mut machine = Machine { process, console };
        machine.interrupt();
        let own = Ipv4Addr::new(10, 41, u8::try_from(number).unwrap(), 2);
        for (key, value) in [
            ("ipaddr", own.to_string()),
            ("netmask", "255.255.255.0".to_owned()),
            ("gatewayip", format!("10.41.{number}.1")),
            ("serverip", SERVICE.to_string()),
            // A transfer that fails is not begun anew.
            ("netretry", "no".to_owned()),
        ] {
            machine.command(&format!("setenv {key} {value}"));
        }
        machine.process.stop().unwrap();
        Self {
            machine: Mutex::new(machine),
        }
    }

    /// Why the read failed, and whether the machine has the very bytes of the file: by their number
    /// and their CRC-32, which U-Boot reckons.
    pub(crate) fn read(
        &self,
        image: &[u8],
        capture: &Capture,
        most: Duration,
    ) -> (Option<String>, bool) {
        let mut machine = self.machine.lock().unwrap();
        machine.process.resume().unwrap();
        let answer = machine.load(capture, most);
        let wanted = format!("Bytes transferred = {}", image.len());
        let answer = match answer {
            Ok(said) if said.contains(&wanted) => {
                let size = image.len();
                let said = machine.command(&format!("crc32 {ADDRESS:x} {size:x}"));
                let sum = format!("==> {:08x}", crc32(image));
                (None, said.contains(&sum))
            }
            Ok(said) => (Some(last_words(&said)), false),
            Err(failure) => (Some(failure), false),
        };
        machine.process.stop().unwrap();
        answer
    }
}

impl Machine {
    /// Keys that stop the boot, until there is a prompt.
    fn interrupt(&mut self) {
        let mut said = String::new();
        let begun = Instant::now();
        while !said.ends_with(PROMPT) {
            assert!(
                begun.elapsed() < PATIENCE,
                "U-Boot does not come up: {said}"
            );
            self.console.write_all(b"\x03").unwrap();
            self.listen(&mut said);
        }
        // Each of the other keys may bring a prompt of its own, however late: this comes behind them.
        self.type_in("echo in step");
        while !said.ends_with(&format!("\nin step\r\n{PROMPT}")) {
            assert!(begun.elapsed() < PATIENCE, "U-Boot does not answer: {said}");
            self.listen(&mut said);
        }
    }

    /// Whether something was said.
    fn listen(&mut self, said: &mut String) -> bool {
        let mut buffer = [0; 4096];
        match self.console.read(&mut buffer) {
            Ok(length @ 1..) => {
                *said += &String::from_utf8_lossy(&buffer[..length]);
                true
            }
            Ok(_) => panic!("qemu has ended: {said}"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                false
            }
            Err(error) => panic!("the console: {error}: {said}"),
        }
    }

    fn type_in(&mut self, line: &str) {
        self.console
            .write_all(format!("{line}\r").as_bytes())
            .unwrap();
    }

    /// What a command that ends soon says.
    fn command(&mut self, line: &str) -> String {
        self.type_in(line);
        let mut said = String::new();
        let begun = Instant::now();
        while !said.ends_with(&format!("\n{PROMPT}")) {
            assert!(begun.elapsed() < PATIENCE, "{line}: {said}");
            self.listen(&mut said);
        }
        said
    }

    fn load(&mut self, capture: &Capture, most: Duration) -> Result<String, String> {
        self.type_in(&format!("tftpboot {ADDRESS:x} image"));
        let mut said = String::new();
        let begun = Instant::now();
        let mut is_given_up = false;
        while !said.ends_with(&format!("\n{PROMPT}")) {
            self.listen(&mut said);
            // Before its request it may ask for addresses in vain.
            let is_late =
                begun.elapsed() > most || (!capture.has_begun() && begun.elapsed() > GIVE_UP);
            if (is_late || capture.silence() > GIVE_UP) && !is_given_up {
                is_given_up = true;
                self.console.write_all(b"\x03").unwrap();
            }
            assert!(begun.elapsed() < most + PATIENCE, "U-Boot hangs: {said}");
        }
        if is_given_up {
            return Err("was ended".to_owned());
        }
        Ok(said)
    }
}

/// The last line that says something: no progress, no prompt.
fn last_words(said: &str) -> String {
    let words = said
        .lines()
        .map(|line| line.trim_matches(['#', ' ', '\t', '\r']));
    let mut words = words.filter(|line| !line.is_empty() && *line != PROMPT.trim());
    words.next_back().unwrap_or_default().to_owned()
}

/// As U-Boot has it (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = !0_u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let low = sum & 1;
            sum >>= 1;
            if low == 1 {
                sum ^= 0xedb8_8320;
            }
        }
    }
    !sum
}

#[test]
fn the_checksum_is_that_of_everybody() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn what_a_console_said_last_is_found_behind_progress() {
    let said =
        "tftpboot 42000000 image\r\nLoading: #####\r\n\t ####T T\r\nRetry count exceeded\r\n=> ";
    assert_eq!(last_words(said), "Retry count exceeded");
}
