# Shared by the commands of this folder: the toolchain and the packages they need.

# The toolchain that Margay is built with: the default one if it is that, else rustup's.
TOOLCHAIN=1.95.0
case "$(rustc --version 2>/dev/null)" in
"rustc $TOOLCHAIN "*) ;;
*) export RUSTUP_TOOLCHAIN=$TOOLCHAIN ;;
esac

# What building and testing needs from Debian.
PACKAGES=(
    clang llvm libelf-dev zlib1g-dev libbpf-dev gcc-multilib m4 make pkg-config
    iproute2 ethtool iperf3 iputils-ping socat tcpdump curl procps containernetworking-plugins
)

fail() {
    echo "$0: $*" >&2
    exit 1
}

# Installs what is missing. A missing capability ends the command with its reason.
prepare() {
    [ "$(id -u)" = 0 ] || fail "must run as root: namespaces and AF_XDP need it"
    local missing=()
    for package in "${PACKAGES[@]}"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            "${missing[@]}" >/dev/null || fail "cannot install: ${missing[*]}"
    fi
    if ! command -v cargo >/dev/null; then
        fail "no cargo: install Rust $TOOLCHAIN with rustup (https://rustup.rs)"
    fi
}
