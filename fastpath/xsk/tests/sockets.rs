//! Sockets on real veths: nothing is lost, nothing is there twice, whatever happens to them.

mod rig;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use margay_xsk::{
    Binder, Error, Frame, Kick, KickError, Mode, Pool, Preference, Region, Socket, Umem,
};
use rig::{Ending, Namespace, SMALL, SMALL_UMEM, Station, region, veth};

const PATIENCE: Duration = Duration::from_secs(5);
const CHUNKS: u32 = 1024;

/// A frame with a number, of an Ethertype for experiments.
fn numbered(number: u16) -> Vec<u8> {
    let mut packet = vec![0xff; 60];
    packet[12..14].copy_from_slice(&[0x88, 0xb5]);
    packet[14..16].copy_from_slice(&number.to_be_bytes());
    packet
}

fn all_back(region: &Region) {
    assert_eq!(region.spare(), CHUNKS as usize, "every chunk is back, once");
}

/// Sends back what arrives until `stop`.
fn echo(station: &mut Station, stop: &AtomicBool) {
    let Station { socket, pool, .. } = station;
    let mut batch = ArrayVec::<Frame, 64>::new();
    while !stop.load(Ordering::Relaxed) {
        socket.look_for_napi();
        socket.run_napi();
        socket.complete(pool);
        socket.rx(&mut batch);
        // Before the answers, which bring the next packets: two groups find no room.
        socket.fill(pool);
        let mut rest = batch.drain(..);
        socket.tx(&mut rest);
        assert_eq!(rest.len(), 0, "the tx ring has room");
        drop(rest);
        assert_eq!(socket.kick_tx(), Ok(Kick::Done));
    }
}

#[test]
fn an_echo_keeps_every_frame() {
    frames_are_echoed(|_| {});
}

#[test]
fn an_echo_keeps_every_frame_where_busy_polling_is_preferred() {
    // Whether a veth's socket knows its NAPI is the kernel's affair; frames come either way.
    frames_are_echoed(|socket| drop(socket.prefer_busy_poll().unwrap()));
}

fn frames_are_echoed(prepare: fn(&mut Socket)) {
    const COUNT: u16 = 10_000;
    let (near, far) = (Namespace::new(), Namespace::new());
    veth(&near, "near", &far, "far");
    let (near_region, far_region) = (region(CHUNKS), region(CHUNKS));
    let (near_index, far_index) = (near.ifindex("near"), far.ifindex("far"));
    let stop = AtomicBool::new(false);

    thread::scope(|scope| {
        let mut station = far.enter(|| Station::open(far_region, "far", far_index));
        prepare(&mut station.socket);
        let ending = Ending(&stop);
        let stop = &stop;
        let echoing = scope.spawn(move || {
            echo(&mut station, stop);
            (station.socket.counters(), station.socket.kernel_counters().unwrap())
        });
        let mut station = near.enter(|| Station::open(near_region, "near", near_index));
        prepare(&mut station.socket);
        let packets: Vec<_> = (0..COUNT).map(numbered).collect();
        let changed = packets.chunks(64).find_map(|group| {
            station.send(group.iter().map(Vec::as_slice));
            let echoed = station.receive(group.len(), PATIENCE);
            station.socket.look_for_napi();
            (echoed != group).then_some((group[0].clone(), echoed))
        });
        drop(ending);
        let (counters, kernel) = echoing.join().unwrap();
        let own = (station.socket.counters(), station.socket.kernel_counters().unwrap());
        assert_eq!(changed, None, "near {own:?}, far {counters:?} {kernel:?}");
        assert_eq!((counters.rx, counters.tx), (COUNT.into(), COUNT.into()));
        assert_eq!((counters.foreign, counters.unsendable), (0, 0));
    });
    all_back(near_region);
    all_back(far_region);
}

#[test]
fn a_frame_goes_from_one_port_to_another_with_a_header_pushed() {
    const PUSH: usize = 50;
    let (node, left, right) = (Namespace::new(), Namespace::new(), Namespace::new());
    veth(&node, "nleft", &left, "left");
    veth(&node, "nright", &right, "right");
    let region = region(CHUNKS);
    let binder = Binder::new(region, SMALL_UMEM);
    let [mut from, mut to] = ["nleft", "nright"].map(|name| {
        let index = node.ifindex(name);
        node.enter(|| {
            let socket = binder.bind(name, 0, Preference::Only(Mode::Copy), SMALL).unwrap().socket;
            Station::start(socket, region, index)
        })
    });
    let mut left = {
        let index = left.ifindex("left");
        left.enter(|| Station::open(rig::region(CHUNKS), "left", index))
    };
    let mut right = {
        let index = right.ifindex("right");
        right.enter(|| Station::open(rig::region(CHUNKS), "right", index))
    };

    let packets: Vec<_> = (0..100).map(numbered).collect();
    for packet in &packets {
        left.send([packet.as_slice()]);
        let mut batch = ArrayVec::<Frame, 64>::new();
        let until = Instant::now() + PATIENCE;
        while from.socket.rx(&mut batch) == 0 {
            assert!(Instant::now() < until, "nothing came");
        }
        let frame = &mut batch[0];
        let (start, len) = (frame.start(), frame.len());
        assert_eq!((start, frame.bytes()), (margay_xsk::HEADROOM, packet.as_slice()));
        frame.chunk_mut()[start - PUSH..start].fill(0xaa);
        frame.set_range(start - PUSH, len + PUSH).unwrap();
        assert_eq!(to.socket.tx(&mut batch.drain(..)), 1);
        assert_eq!(to.socket.kick_tx(), Ok(Kick::Done));
        let expected = [vec![0xaa; PUSH], packet.clone()].concat();
        assert_eq!(right.receive(1, PATIENCE), [expected]);
        // The chunk comes back on the port it left by, and serves the other one again.
        let Station { socket, pool, .. } = &mut to;
        while socket.complete(pool) == 0 {}
        from.socket.fill(&mut to.pool);
    }
    assert_eq!(to.socket.counters().completed, 100);
    drop((from, to, binder));
    all_back(region);
}

#[test]
fn a_queue_is_bound_again_at_once_after_its_socket_was_closed() {
    let (near, far) = (Namespace::new(), Namespace::new());
    veth(&near, "home", &far, "far");
    veth(&near, "port", &far, "other");
    let region = region(CHUNKS);
    near.enter(|| {
        let binder = Binder::new(region, SMALL_UMEM);
        let copy = Preference::Only(Mode::Copy);
        let home = binder.bind("home", 0, copy, SMALL).unwrap();
        for _ in 0..5 {
            let started = Instant::now();
            let mut socket = binder.bind("port", 0, copy, SMALL).unwrap().socket;
            assert!(started.elapsed() < Duration::from_secs(10));
            let mut pool = Pool::new(region, 256);
            assert_eq!(socket.fill(&mut pool), SMALL.ready as usize);
            assert_eq!(socket.lent(), SMALL.ready as usize);
        }
        drop(home);
    });
    all_back(region);
}

#[test]
fn a_port_that_keeps_more_frames_ready_takes_a_longer_burst() {
    let (left, right) = (Namespace::new(), Namespace::new());
    veth(&left, "left", &right, "right");
    let station = |namespace: &Namespace, interface| {
        let index = namespace.ifindex(interface);
        namespace.enter(|| Station::open(region(CHUNKS), interface, index))
    };
    let (mut sender, mut receiver) = (station(&left, "left"), station(&right, "right"));
    assert_eq!(receiver.socket.lent(), SMALL.ready as usize);
    receiver.socket.set_ready(250);
    receiver.socket.fill(&mut receiver.pool);
    assert_eq!(receiver.socket.lent(), 250);
    // All are sent before the receiver gives the kernel another frame.
    let burst: Vec<_> = (0..200).map(numbered).collect();
    sender.send(burst.iter().map(Vec::as_slice));
    assert_eq!(receiver.receive(burst.len(), PATIENCE), burst);
    receiver.socket.set_ready(u32::MAX);
    assert_eq!(receiver.socket.ready(), SMALL_UMEM.fill, "no more than the ring holds");
}

#[test]
fn a_queue_that_has_a_socket_is_refused_as_such() {
    let (near, far) = (Namespace::new(), Namespace::new());
    veth(&near, "home", &far, "far");
    let region = region(CHUNKS);
    near.enter(|| {
        let opened = Umem::open(region, Mode::Copy, SMALL_UMEM, "home", 0, SMALL);
        let (umem, home) = opened.unwrap();
        let second = umem.bind("home", 0, SMALL);
        assert!(matches!(second, Err(Error::AlreadyBound { queue: 0, .. })), "{second:?}");
        drop(home);
    });
}

#[test]
fn a_veth_falls_back_to_copy_mode_and_tells_why() {
    let (near, far) = (Namespace::new(), Namespace::new());
    veth(&near, "home", &far, "far");
    near.enter(|| {
        let binder = Binder::new(region(CHUNKS), SMALL_UMEM);
        let bound = binder.bind("home", 0, Preference::Auto, SMALL).unwrap();
        assert_eq!(bound.socket.mode(), Mode::Copy);
        let fallback = bound.fallback.expect("a reason");
        assert_eq!(fallback.from, Mode::ZeroCopy);
        assert!(fallback.to_string().starts_with("no zero-copy: "), "{fallback}");
    });
}

#[test]
fn an_interface_that_vanishes_under_its_socket_costs_no_frame_and_no_other_port() {
    let (node, pod, other) = (Namespace::new(), Namespace::new(), Namespace::new());
    veth(&node, "home", &other, "other");
    veth(&node, "port", &pod, "pod");
    let region = region(CHUNKS);
    let (home_index, port_index) = (node.ifindex("home"), node.ifindex("port"));
    let binder = Binder::new(region, SMALL_UMEM);
    let bind = |name, index| {
        node.enter(|| {
            let copy = Preference::Only(Mode::Copy);
            let socket = binder.bind(name, 0, copy, SMALL).unwrap().socket;
            Station::start(socket, region, index)
        })
    };
    let (mut home, mut port) = (bind("home", home_index), bind("port", port_index));
    let mut other = {
        let index = other.ifindex("other");
        other.enter(|| Station::open(rig::region(CHUNKS), "other", index))
    };

    node.ip("link del dev port");
    let packet = numbered(1);
    let mut frame = port.pool.take().unwrap();
    frame.write(margay_xsk::HEADROOM, &packet).unwrap();
    assert_eq!(port.socket.tx(&mut [frame].into_iter()), 1);
    let until = Instant::now() + PATIENCE;
    // The kernel unbinds the socket while it takes the interface down.
    while port.socket.kick_tx() != Err(KickError::Gone) {
        assert!(Instant::now() < until, "{:?}", port.socket.kick_tx());
        sleep(Duration::from_millis(1));
    }
    assert_eq!(port.socket.rx(&mut ArrayVec::<_, 64>::new()), 0);
    drop(port);

    // A new interface takes its place; the UMEM is still shared by way of `home`.
    veth(&node, "port", &pod, "pod");
    let again = node.ifindex("port");
    let port = bind("port", again);
    home.send([packet.as_slice()]);
    assert_eq!(other.receive(1, PATIENCE), [packet]);
    drop((home, port, binder));
    all_back(region);
}

#[test]
fn an_owner_that_vanishes_is_replaced_at_the_next_bind() {
    let (node, far) = (Namespace::new(), Namespace::new());
    veth(&node, "home", &far, "far");
    let region = region(CHUNKS);
    node.enter(|| {
        let binder = Binder::new(region, SMALL_UMEM);
        let copy = Preference::Only(Mode::Copy);
        let lost = binder.bind("home", 0, copy, SMALL).unwrap();
        node.ip("link del dev home");
        veth(&node, "home", &far, "far");
        let found = binder.bind("home", 0, copy, SMALL).unwrap();
        drop((lost, found));
    });
    all_back(region);
}

#[test]
fn a_full_tx_ring_leaves_the_rest_with_the_caller() {
    let (near, far) = (Namespace::new(), Namespace::new());
    veth(&near, "near", &far, "far");
    let region = region(CHUNKS);
    let index = near.ifindex("near");
    let mut station = near.enter(|| Station::open(region, "near", index));
    let Station { socket, pool, .. } = &mut station;
    let mut frames: Vec<Frame> = std::iter::from_fn(|| pool.take()).take(300).collect();
    assert_eq!(frames.len(), 300);
    for frame in &mut frames {
        frame.write(256, &numbered(0)).unwrap();
    }
    let mut rest = frames.into_iter();
    assert_eq!(socket.tx(&mut rest), SMALL.tx as usize, "without a kick nothing leaves");
    assert_eq!(rest.len(), 300 - SMALL.tx as usize);
    assert_eq!(socket.counters().tx_ring_full, 1);
    rest.for_each(|frame| pool.put(frame));
    assert_eq!(socket.kick_tx(), Ok(Kick::Done));
    drop(station);
    all_back(region);
}

#[test]
fn a_frame_that_cannot_be_sent_goes_home() {
    let (near, far) = (Namespace::new(), Namespace::new());
    veth(&near, "near", &far, "far");
    let (region, foreign) = (region(CHUNKS), rig::region(CHUNKS));
    let index = near.ifindex("near");
    let mut station = near.enter(|| Station::open(region, "near", index));
    let empty = station.pool.take().unwrap();
    let mut stranger = Pool::new(foreign, 64).take().unwrap();
    stranger.write(256, &numbered(0)).unwrap();
    assert_eq!(station.socket.tx(&mut [empty, stranger].into_iter()), 2);
    assert_eq!(station.socket.counters().unsendable, 2);
    assert_eq!(station.socket.tx_pending(), 0);
    drop(station);
    all_back(region);
    all_back(foreign);
}
