#!/bin/sh
# A machine with containerd and kubelet, made of namespaces: its files are this machine's with a layer of its own above.
# Nothing of this machine is changed, and all of it is gone when the first process ends.
#
#   machine.sh NAME FOLDER      # in its network namespace; FOLDER has settings, images and, later, logs
set -eu
name=$1 folder=$2

# --- outside: control groups of its own
if [ "${MACHINE:-}" = "" ]; then
  for each in /sys/fs/cgroup/*/; do
    [ -e "$each/cgroup.procs" ] || continue
    mkdir -p "$each/felix-$name-$$"
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e "$each/$file" ] || cat "$each/$file" >"$each/felix-$name-$$/$file"
    done
    echo $$ >"$each/felix-$name-$$/cgroup.procs"
  done
  echo "felix-$name-$$" >"$folder/group"
  MACHINE=inside exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup /bin/sh "$0" "$@"
fi

# --- inside: files of its own
hostname "$name"
mount --make-rprivate /
mkdir -p "$folder/machine"
mount -t tmpfs machine "$folder/machine"
cd "$folder/machine"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" machine root
mkdir -p "root$folder" root/old
mount --bind "$folder" "root$folder"
mount -t proc proc root/proc
mount -t sysfs sysfs root/sys
mount --rbind /dev root/dev
for each in run sys/fs/cgroup var/lib/containerd var/lib/kubelet; do
  mkdir -p "root/$each"
  mount -t tmpfs -o mode=755 "$name" "root/$each"
done
mount -t bpf bpf root/sys/fs/bpf
for each in $(awk -F: '$2 != "" {print $2}' /proc/self/cgroup); do
  mkdir -p "root/sys/fs/cgroup/${each#name=}"
  mount -t cgroup -o "$each" cgroup "root/sys/fs/cgroup/${each#name=}"
done
# Daemons have a group beside that of all pods, as systemd would have it.
for each in root/sys/fs/cgroup/*/; do
  mkdir -p "$each/system"
  for file in cpuset.cpus cpuset.mems; do
    [ ! -e "$each/$file" ] || cat "$each/$file" >"$each/system/$file"
  done
  echo $$ >"$each/system/cgroup.procs"
done
cd root
pivot_root . old
cd /
umount -l /old
mount --make-rshared /

# Kubelet wants these of the whole kernel; it is shown what it wants instead.
for each in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  key=${each%=*}
  file=/run/parameters/$(echo "$key" | tr / _)
  mkdir -p /run/parameters
  echo "${each#*=}" >"$file"
  mount --bind "$file" "/proc/sys/$key"
done
: >/etc/resolv.conf
rm -rf /etc/cni/net.d /opt/cni/bin /var/lib/felix /var/lib/cni /var/log/pods /var/log/containers
mkdir -p /etc/cni/net.d /opt/cni/bin /var/log/pods "$folder/pods"
mount --bind "$folder/pods" /var/log/pods
cp /usr/lib/cni/* /opt/cni/bin/

# --- what runs on it; the shell stays, and buries the orphans
containerd --config "$folder/containerd.toml" >"$folder/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.05; done
for each in "$folder"/../images/*.tar; do ctr -n k8s.io images import "$each" >>"$folder/images.log" 2>&1; done
"$KUBE_PROXY" --config "$folder/kube-proxy.yaml" --hostname-override "$name" >"$folder/kube-proxy.log" 2>&1 &
while :; do # as a service that is started again
  "$KUBELET" --config "$folder/kubelet.yaml" --kubeconfig "$folder/kubelet.conf" --node-ip "$ADDRESS" \
    --hostname-override "$name" --node-labels "rack=$RACK" --cert-dir /run/pki --v=2 >>"$folder/kubelet.log" 2>&1 || :
done &
wait
