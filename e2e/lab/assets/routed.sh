#!/bin/sh
# A CNI plugin like those that route: a veth for each pod, no address at the node's end and no bridge. The pod has its
# address alone (/32, /128) and sends everything to 169.254.1.1 and fe80::1, which the node's end of the veth answers for;
# the node has a route for each pod.
set -eu

config=$(cat)
# As many characters as an interface's name may have.
host="rt$(printf %s "$CNI_CONTAINERID$CNI_IFNAME" | cksum | cut -d ' ' -f 1)"

fail() {
    printf '{"cniVersion": "1.0.0", "code": 100, "msg": "%s"}\n' "$1"
    exit 1
}

# host-local gives addresses and takes them back; what it prints has each on a line of its own.
ipam() {
    printf %s "$config" | "${CNI_PATH%%:*}/host-local"
}

add() {
    given=$(ipam) || { printf '%s\n' "$given"; exit 1; }
    addresses=$(printf '%s\n' "$given" | sed -n 's/.*"address": *"\([^/"]*\).*/\1/p')
    [ -n "$addresses" ] || fail "host-local has given no address"
    pod=$(basename "$CNI_NETNS")
    ip link add "$host" type veth peer name "$CNI_IFNAME" netns "$pod" >&2
    # As those plugins have it: every veth of the node has this address.
    ip link set "$host" address ee:ee:ee:ee:ee:ee up >&2
    echo 1 > "/proc/sys/net/ipv4/conf/$host/proxy_arp"
    echo 0 > "/proc/sys/net/ipv4/neigh/$host/proxy_delay"
    ip address add fe80::1/64 dev "$host" nodad >&2
    ip -netns "$pod" link set lo up >&2
    ip -netns "$pod" link set "$CNI_IFNAME" up >&2
    ips=
    for address in $addresses; do
        case $address in
        *:*)
            length=128
            ip -netns "$pod" address add "$address/$length" dev "$CNI_IFNAME" nodad >&2
            ip -netns "$pod" route add default via fe80::1 dev "$CNI_IFNAME" >&2
            ;;
        *)
            length=32
            ip -netns "$pod" address add "$address/$length" dev "$CNI_IFNAME" >&2
            ip -netns "$pod" route add 169.254.1.1 dev "$CNI_IFNAME" scope link >&2
            ip -netns "$pod" route add default via 169.254.1.1 dev "$CNI_IFNAME" >&2
            ;;
        esac
        ip route add "$address/$length" dev "$host" >&2
        ips="$ips${ips:+, }{\"address\": \"$address/$length\", \"interface\": 1}"
    done
    printf '{"cniVersion": "1.0.0", "interfaces": [{"name": "%s"}, {"name": "%s", "sandbox": "%s"}], "ips": [%s]}\n' \
        "$host" "$CNI_IFNAME" "$CNI_NETNS" "$ips"
}

case $CNI_COMMAND in
ADD) add ;;
DEL)
    ipam
    # Its routes go with it. It may have gone already.
    ip link delete "$host" 2> /dev/null || true
    ;;
CHECK) ipam ;;
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}' ;;
*) fail "routed knows no $CNI_COMMAND" ;;
esac
