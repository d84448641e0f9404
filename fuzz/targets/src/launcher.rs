//! The launcher's protocol: packets, plans, and the command that a plan executes.

use std::os::fd::OwnedFd;

use berth_launcher::mapped::Mapped;
use berth_launcher::prepare::{Descriptors, prepare};
use berth_launcher::{instance, memory_file};
use berth_wire::launch::{
    Child, Command, FdIndex, Launch, OutputFile, Packet, Plan, Request, RequestBody, Step,
};
use berth_wire::report::Exit;

use crate::{Target, target};

pub const TARGETS: &[Target] = &[
    target("launcher-packet", packet, packets),
    Target { cost_us: 60, ..target("launcher-plan", plan, plans) },
    Target { cost_us: 60, ..target("command", command, commands) },
    target("wait-status", wait_status, wait_statuses),
];

/// Both directions: the launcher reads the one, the agent the other.
fn packet(input: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(input) {
        let again = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&again).unwrap(), request);
    }
    if let Ok(packet) = serde_json::from_slice::<Packet>(input) {
        let again = serde_json::to_vec(&packet).unwrap();
        assert_eq!(serde_json::from_slice::<Packet>(&again).unwrap(), packet);
    }
    let _ = serde_json::from_slice::<Vec<Child>>(input);
}

fn plan(input: &[u8]) {
    let Ok(plan) = serde_json::from_slice::<Plan>(input) else { return };
    let file = || -> OwnedFd { memory_file::sealed(c"fuzz", example().as_bytes()).unwrap() };
    let received = [file(), file()];
    let descriptors = Descriptors { received: &received, output: None, in_groups: false };
    let Ok(prepared) = prepare(&plan, &descriptors) else { return };
    assert_eq!((prepared.steps.len(), prepared.main.len()), (plan.steps.len(), plan.main.len()));
    // What passed names no descriptor that did not come, and no path that climbs.
    let text = serde_json::to_value(&plan).unwrap().to_string();
    for step in plan.steps.iter().chain(&plan.main) {
        if let Step::Mask { path }
        | Step::ReadOnly { path }
        | Step::Bind { path, .. }
        | Step::Directory { path, .. } = step
        {
            assert!(path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{text}");
        }
        if let Step::Layer { tree: FdIndex(index), .. } | Step::EnterUser { namespace: FdIndex(index) } = step
        {
            assert!(usize::from(*index) < received.len());
        }
    }
}

/// The counts and strings that execve gets.
fn command(input: &[u8]) {
    let file = memory_file::sealed(c"fuzz", input).unwrap();
    let Ok(mapped) = Mapped::new(&file) else { return };
    let mut strings = mapped.candidates().len();
    for mut pointer in [mapped.argv(), mapped.envp()] {
        // SAFETY: each list ends with NULL, and each entry is a string that ends within the mapping.
        unsafe {
            while !(*pointer).is_null() {
                assert!(std::ffi::CStr::from_ptr(*pointer).count_bytes() < input.len());
                strings += 1;
                pointer = pointer.add(1);
            }
        }
    }
    assert!(strings <= input.len());
}

/// Four bytes that init writes, which is in the container.
fn wait_status(input: &[u8]) {
    let Ok(bytes) = <[u8; 4]>::try_from(input) else { return };
    match instance::decode(i32::from_ne_bytes(bytes)) {
        Exit::Code(_) => {}
        Exit::Signal(signal) => assert!((1..=127).contains(&signal), "{bytes:?}"),
        other => panic!("{other:?}"),
    }
}

fn example() -> Command {
    let env = [("PATH".to_owned(), "/bin:/usr/bin".to_owned())];
    Command::new(&["sh".to_owned(), "-c".to_owned()], env.iter().map(|(k, v)| (k, v))).unwrap()
}

fn packets() -> Vec<Vec<u8>> {
    let id = berth_wire::id::InstanceId(uuid::Uuid::nil());
    let launch = Launch {
        id,
        plan: FdIndex(0),
        cgroup: Some(FdIndex(1)),
        parked: None,
        uid_base: 1 << 20,
        output: Some(OutputFile { path: "/log".into(), bytes_max: 10, lines_per_second: 5 }),
    };
    let bodies = [
        RequestBody::Launch(Box::new(launch)),
        RequestBody::Signal { id, signal: 15 },
        RequestBody::List,
        RequestBody::Park,
    ];
    let requests = bodies.into_iter().map(|body| serde_json::to_vec(&Request { number: 7, body }).unwrap());
    let answers = [
        r#"{"packet": "reply", "number": 7, "reply": {"reply": "launched", "pid": 5}}"#,
        r#"{"packet": "event", "event": {"event": "exited", "id": "00000000-0000-0000-0000-000000000000", "exit": {"code": 3}}}"#,
    ];
    requests.chain(answers.map(|text| text.as_bytes().to_vec())).collect()
}

fn plans() -> Vec<Vec<u8>> {
    let steps = vec![
        Step::JoinLegacyCgroup { procs: FdIndex(0) },
        Step::UnshareCgroup,
        Step::Hostname { name: "inside".into() },
        Step::Layer { tree: FdIndex(0), idmap: Some(FdIndex(1)) },
        Step::Directory { path: "/proc".into(), owner: 1 << 20 },
        Step::Bind { tree: FdIndex(1), idmap: None, path: "/vol".into(), owner: 0 },
        Step::Mask { path: "/proc/kcore".into() },
        Step::ReadOnly { path: "/sys".into() },
        Step::Bounding { keep: vec![0, 63, 64, 255] },
        Step::Seccomp { program: FdIndex(1) },
    ];
    let main = vec![Step::WorkingDirectory { path: "/".into() }, Step::Execute { command: FdIndex(0) }];
    vec![serde_json::to_vec(&Plan { steps, main }).unwrap()]
}

fn commands() -> Vec<Vec<u8>> {
    vec![
        example().as_bytes().to_vec(),
        vec![0; 12],
        vec![255; 40],
        [vec![1, 0, 0, 0], vec![0; 8], b"x\0".to_vec()].concat(),
    ]
}

fn wait_statuses() -> Vec<Vec<u8>> {
    [0, 0x0300, 9, 0x8b, 0x137f, 0xffff, -1].map(|status: i32| status.to_ne_bytes().to_vec()).to_vec()
}
