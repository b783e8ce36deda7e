//! Packets of several chunks, on real veths with an MTU of 9000: whole in and out, between short ones.

mod rig;

use std::{
    net::UdpSocket,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use margay_xsk::{
    Binder, ChunkSize, Frame, Kick, Mode, Preference, Region, RegionConfig, UmemOptions,
    program::XdpMode,
};
use rig::{Namespace, SMALL, SMALL_UMEM, Station, veth};

const PATIENCE: Duration = Duration::from_secs(5);
const CHUNKS: u32 = 1024;
const JUMBO_UMEM: UmemOptions = UmemOptions { multi_buffer: true, ..SMALL_UMEM };
/// Just fitting a chunk, just not, and as long as the MTU allows.
const LENGTHS: [usize; 10] = [60, 9014, 1792, 1793, 3840, 61, 3841, 9014, 9013, 1514];

/// Two namespaces with a veth pair `eth0` between them whose MTU is 9000.
fn jumbo_veth() -> [Namespace; 2] {
    let ends = [Namespace::new(), Namespace::new()];
    veth(&ends[0], "eth0", &ends[1], "eth0");
    ends.iter().for_each(|end| end.ip("link set dev eth0 mtu 9000"));
    ends
}

fn region(chunk_size: ChunkSize) -> &'static Region {
    Region::new(RegionConfig { chunks: CHUNKS, chunk_size, hugepages: false }).unwrap()
}

fn station(namespace: &Namespace, region: &'static Region) -> Station {
    let (index, copy) = (namespace.ifindex("eth0"), Preference::Only(Mode::Copy));
    namespace.enter(|| {
        let bound = Binder::new(region, JUMBO_UMEM).bind("eth0", 0, copy, SMALL).unwrap();
        Station::start_as(bound.socket, region, index, true)
    })
}

/// A packet of an Ethertype for experiments, no two bytes that far apart alike.
fn packet(length: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..length).map(|byte| (byte % 251) as u8).collect();
    packet[12..14].copy_from_slice(&[0x88, 0xb5]);
    packet
}

fn all_back(region: &Region) {
    assert_eq!(region.spare(), CHUNKS as usize, "every chunk is back, once");
}

#[test]
fn packets_of_any_length_are_echoed_whole_and_in_order() {
    for chunk_size in [ChunkSize::Bytes2048, ChunkSize::Bytes4096] {
        let [near, far] = jumbo_veth();
        let (near_region, far_region) = (region(chunk_size), region(chunk_size));
        let (mut left, mut right) = (station(&near, near_region), station(&far, far_region));
        let packets = LENGTHS.map(packet);
        for _ in 0..50 {
            left.send(packets.iter().map(Vec::as_slice));
            let mut echoed = 0;
            let Station { socket, pool, .. } = &mut right;
            let mut batch = ArrayVec::<Frame, 64>::new();
            let until = Instant::now() + PATIENCE;
            while echoed < packets.len() {
                assert!(Instant::now() < until, "only {echoed} came");
                socket.complete(pool);
                echoed += socket.rx(&mut batch);
                let mut rest = batch.drain(..);
                socket.tx(&mut rest);
                assert_eq!(rest.len(), 0, "the tx ring has room");
                drop(rest);
                assert_eq!(socket.kick_tx(), Ok(Kick::Done));
                socket.fill(pool);
            }
            assert!(left.receive(packets.len(), PATIENCE) == packets, "unchanged and in order");
        }
        let counters = right.socket.counters();
        assert_eq!((counters.rx, counters.tx), (500, 500));
        assert_eq!((counters.foreign, counters.broken, counters.unsendable), (0, 0, 0));
        drop((left, right));
        all_back(near_region);
        all_back(far_region);
    }
}

#[test]
fn a_packet_that_a_batch_ends_in_comes_with_the_next() {
    let [near, far] = jumbo_veth();
    let regions = [region(ChunkSize::Bytes2048), region(ChunkSize::Bytes2048)];
    let (mut left, mut right) = (station(&near, regions[0]), station(&far, regions[1]));
    let packets = [packet(9014), packet(60)];
    left.send(packets.iter().map(Vec::as_slice));
    // Six descriptors and one.
    let [mut first, mut second] = [const { ArrayVec::<Frame, 4>::new_const() }; 2];
    let until = Instant::now() + PATIENCE;
    while right.socket.lent() > SMALL.ready as usize - 4 {
        assert_eq!(right.socket.rx(&mut first), 0);
        assert!(Instant::now() < until, "nothing came");
    }
    assert_eq!(right.socket.rx(&mut second), 2);
    let came = second.iter().map(|frame| frame.parts().collect::<Vec<_>>().concat());
    assert!(came.eq(packets));

    // Another is left unfinished by the socket that is closed.
    left.send([packet(9014).as_slice()]);
    while right.socket.lent() > SMALL.ready as usize - 7 - 4 {
        assert_eq!(right.socket.rx(&mut first), 0);
        assert!(Instant::now() < until, "nothing came");
    }
    drop((left, right, second));
    regions.into_iter().for_each(all_back);
}

#[test]
fn every_socket_of_a_multi_buffer_umem_takes_long_packets() {
    let node = Namespace::new();
    let pods = [Namespace::new(), Namespace::new()];
    let region = region(ChunkSize::Bytes2048);
    let binder = Binder::new(region, JUMBO_UMEM);
    let mut ports = ["left", "right"].into_iter().zip(&pods).map(|(name, pod)| {
        veth(&node, name, pod, "eth0");
        node.ip(&format!("link set dev {name} mtu 9000"));
        pod.ip("link set dev eth0 mtu 9000");
        let (index, copy) = (node.ifindex(name), Preference::Only(Mode::Copy));
        node.enter(|| {
            let bound = binder.bind(name, 0, copy, SMALL).unwrap();
            Station::start_as(bound.socket, region, index, true)
        })
    });
    let (mut owner, mut other) = (ports.next().unwrap(), ports.next().unwrap());
    drop(ports);
    let mut ends = pods.each_ref().map(|pod| station(pod, self::region(ChunkSize::Bytes4096)));

    // From one to the other, in the chunks that it came in.
    let sent = packet(9014);
    ends[0].send([sent.as_slice()]);
    let mut batch = ArrayVec::<Frame, 64>::new();
    let until = Instant::now() + PATIENCE;
    while owner.socket.rx(&mut batch) == 0 {
        assert!(Instant::now() < until, "nothing came");
    }
    assert_eq!(batch[0].parts().count(), 6);
    assert_eq!(other.socket.tx(&mut batch.drain(..)), 1);
    assert_eq!(other.socket.kick_tx(), Ok(Kick::Done));
    assert!(ends[1].receive(1, PATIENCE) == [sent.clone()]);
    ends[1].send([sent.as_slice()]);
    assert!(other.receive(1, PATIENCE) == [sent]);
    drop((owner, other, binder));
    all_back(region);
}

#[test]
fn a_full_ring_takes_whole_packets_only() {
    let [near, far] = jumbo_veth();
    let (region, far_region) = (region(ChunkSize::Bytes4096), region(ChunkSize::Bytes4096));
    let (mut left, mut right) = (station(&near, region), station(&far, far_region));
    right.socket.set_ready(256);
    right.socket.fill(&mut right.pool);
    let sent = packet(9014);
    let frames: Vec<Frame> = std::iter::from_fn(|| left.pool.packet(&sent)).take(100).collect();
    let mut rest = frames.into_iter();
    let taken = left.socket.tx(&mut rest);
    // 256 slots, three for each packet, and for the last one as many as a packet may have.
    assert_eq!((taken, rest.len(), left.socket.counters().tx_ring_full), (80, 20, 1));
    rest.for_each(|frame| left.pool.put(frame));
    assert_eq!(left.socket.kick_tx(), Ok(Kick::Done));
    assert!(right.receive(taken, PATIENCE) == vec![sent; taken]);
    left.socket.complete(&mut left.pool);
    assert_eq!(left.socket.counters().completed, 3 * taken as u64, "the kernel has copied them");
    drop((left, right));
    all_back(region);
    all_back(far_region);
}

/// The kernel's own super-datagrams are longer than any MTU. A veth passes them on unsegmented where
/// XDP runs generically at its other end.
#[test]
fn super_frames_are_received_whole_or_dropped_and_counted() {
    for (chunk_size, whole) in [(ChunkSize::Bytes4096, true), (ChunkSize::Bytes2048, false)] {
        let [near, far] = jumbo_veth();
        let region = region(chunk_size);
        let mut receiver = station(&near, region);
        let index = near.ifindex("eth0");
        near.enter(|| {
            receiver.program.detach(index).unwrap();
            receiver.program.attach_as(index, XdpMode::Generic).unwrap();
        });
        far.ip("addr add 10.0.0.2/24 dev eth0");
        far.ip("neigh replace 10.0.0.1 lladdr 2:2:2:2:2:2 dev eth0 nud permanent");
        let socket = far.enter(|| UdpSocket::bind("10.0.0.2:0").unwrap());
        socket.connect("10.0.0.1:9").unwrap();
        socket.send(&[7; 100]).unwrap();
        segment(&socket, 1000);
        assert_eq!(socket.send(&[7; 60_000]).unwrap(), 60_000);
        segment(&socket, 0);
        socket.send(&[7; 100]).unwrap();
        let lengths: Vec<_> = if whole { vec![142, 60_042, 142] } else { vec![142, 142] };
        let came = receiver.receive(lengths.len(), PATIENCE);
        assert_eq!(came.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
        assert_eq!(receiver.socket.counters().broken, u64::from(!whole));
        drop(receiver);
        all_back(region);
    }
}

/// Has the socket send what it is given in datagrams of that size, as one packet of the kernel's.
fn segment(socket: &UdpSocket, size: libc::c_int) {
    // SAFETY: a live descriptor, and a pointer to a value of the length given.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    assert_eq!(code, 0, "UDP_SEGMENT");
}

#[test]
fn a_socket_without_multi_buffer_refuses_long_packets() {
    let (near, far) = (Namespace::new(), Namespace::new());
    veth(&near, "near", &far, "far");
    let region = region(ChunkSize::Bytes4096);
    let index = near.ifindex("near");
    let mut station = near.enter(|| Station::open(region, "near", index));
    let long = station.pool.packet(&packet(9014)).unwrap();
    assert_eq!(station.socket.tx(&mut [long].into_iter()), 1);
    assert_eq!(station.socket.counters().unsendable, 1);
    assert_eq!(station.socket.tx_pending(), 0);
    drop(station);
    all_back(region);
}
