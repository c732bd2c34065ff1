"""Command lines that `docker` and `pier` must answer alike: stdout, stderr and exit status.

Each case is one line as a shell would take it. `{i}` is the image (busybox), `{r}` a running container, `{e}` one that
exited with code 3 after writing `out` and `err`; `{p}` is a prefix for names a case makes, and
`{tar}` the archive of a root file system. In `FIRST_LINE_ONLY` Pier says more than Docker after the first line.
"""

from __future__ import annotations

FLAG_ERRORS = """
run
run --bogus
run -y
run --memory
run --memory=zz {i}
run -m 1x {i}
run --cpus=x a
run --pids-limit=x a
run -itd -y
run -e
run --tty=maybe a
run -d -a stdout {i} true
run -d --rm --restart=always {i} true
run --pull=x {i}
run -p x {i}
run -p 99999:80 {i}
run -p 80:80/foo {i}
run -p 1-3:1-2 a
run -p 300.1.1.1:80:80 a
run --mount type=bind {i}
run --mount foo {i}
run --mount foo=bar {i}
run --mount type=bind,source=/a,target=/b,volume-nocopy {i}
run --ulimit x {i}
run --ulimit bogus=1 {i}
run --ulimit nofile=5:2 {i}
run --device x:y:z:w {i}
run --env-file /nope {i}
run --label-file /nope {i}
run --add-host x {i}
run --add-host x:y {i}
run --dns foo {i}
run -e =x {i}
run --security-opt x {i} true
run --security-opt seccomp=/nope {i}
run --sysctl x {i}
run --sysctl kernel.foo=1 {i}
run --gpus foo=bar {i}
run --gpus x {i}
run --network= {i} true
run --network-alias a {i} true
create --network a --network container:b {i}
create --network a --network b --network host {i}
create -v :/x {i}
create -v /a:/b: {i}
create -v va:/x:ro:z {i}
create -v '' {i}
create --expose a-80 {i}
create --expose '' {i}
create --expose 70000 {i}
create --mount type=bind,source=/tmp,target=/x,bind-recursive=writable {i}
run --platform foo/bar/baz/x {i} true
run --shm-size x {i}
run --pid=x {i}
run --uts=x {i}
run --userns=x {i}
run --cgroupns=x {i}
run --memory-swappiness=200 {i}
run --health-cmd x --no-healthcheck {i}
run --health-interval=-1s {i}
run --health-interval=5 {i}
run --stop-timeout=x {i}
run --blkio-weight=99999 {i}
run --blkio-weight-device x {i}
run --device-read-bps x:1 {i}
run --device-read-iops /dev/x:y {i}
run --restart=on-failure:x {i}
run --restart=:3 {i}
run --attach foo {i}
run --storage-opt x {i}
run --log-driver none --log-opt a=b {i}
run --=x {i}
run ---x {i}
run ''
run UPPER
run a:b:c
create
create --bogus
create ''
exec
exec a
exec --bogus
exec -it
exec {r} --
ps foo
ps --bogus
ps -x
ps -n x
ps -n
ps --format '{{.Foo}}'
ps --format '{{.ID'
ps --format '{{foo}}'
ps --format '{{if}}{{end}}'
ps --format '{{range .Names}}'
ps -f bogus
ps --all=maybe
network create
network create a b
network create --bogus a
network create --subnet 10.1.0.0/16 --gateway 10.1.0.1 --gateway 10.1.0.2 a
network create --subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --gateway 10.1.0.1,10.1.0.2 a
network create --subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --ip-range 10.1.1.0/24,10.1.2.0/24 a
network create --subnet 10.1.0.0/16 --subnet 10.1.2.0/24 a
network create --subnet 10.1.0.0/16 --gateway 10.9.0.1 a
network create --subnet 10.1.0.0/16 --gateway x a
network create --subnet 10.1.0.0/16 --ip-range 10.9.0.0/24 a
network create --subnet 10.1.0.0/16 --aux-address a=10.9.0.1 a
network create --subnet 10.1.0.0/16 --aux-address a a
network create --subnet 10.1.0.0/16 --ip-range 10.9.0.0/99 a
network create --subnet x --gateway 10.9.0.1 a
network create --gateway 10.9.0.1 a
network create --ipv6=maybe a
network create -o
network rm
network rm --bogus
network inspect
network connect
network connect a
network connect a b c
network connect --gw-priority x a b
network connect --driver-opt x a b
network connect --driver-opt =x a b
network connect --link-local-ip
network disconnect a
network prune a
network ls a
network ls -f bogus
network foo
run --network name=a,bogus=x {i} true
run --network name=a,foo {i} true
run --network name=a,gw-priority=x {i} true
run --network name=a,ip=1.2.3.4 --ip 1.2.3.5 {i} true
run --network name=a,mac-address=x {i} true
run --network name=a,driver-opt==x {i} true
run --network alias=x {i} true
run --mac-address x {i} true
run --network bridge --network bridge {i} true
run --network container:{r} --mac-address 02:42:0a:00:00:07 {i} true
run --network container:{r} -h foo {i} true
stop
stop -t x a
kill
rm
rmi
inspect
inspect --type bogus nosuch
inspect -f '{{.State' {e}
tag a
tag {i} Foo
logs
logs a b
logs --since foo {e}
rename a
rename {e} ''
version foo
info foo
images a b
load x
import
save
save --bogus
save -o
export
export a b
export --bogus
pull
pull a b
pull UPPER
pull -a nosuch:x
wait
attach
attach a b
events x
top
port
port a b c
diff
diff a b
pause
unpause
update
update {r}
update --memory
update --memory x {r}
update --cpus abc {r}
update --blkio-weight 99999 {r}
update --pids-limit x {r}
update --bogus {r}
restart
start
start -a a b
history
foo
container foo
image bar
--bogus ps
-x
-l foo ps
-H a -H b ps
help foo
volume create a b
volume create --opt
volume ls --bogus
volume ls a
volume ls --filter x
volume rm
volume inspect
volume prune a
run --mount type=volume,src=a,dst=/m,bind-propagation=rshared {i}
run --mount type=volume,src=a {i}
volume create x
volume create ../x
volume create --opt foo=bar {p}v
volume create --label =x {p}v
volume create --name {p}v {p}w
network create --label 'a b=c' {p}net
volume create --opt type=tmpfs {p}v
volume create --opt size=zz {p}v
volume inspect nosuch
volume inspect -f '{{.Name}}' nosuch nosuch2
volume rm nosuch nosuch2
volume ls -f dangling=x
volume ls -f foo=x
volume prune -f --filter until=1h
run --rm -v 'a b:/v' {i} true
run --rm -v x/../y:/v:rshared {i} true
run --rm -v {p}v:/v:rshared {i} true
run --rm -v {p}v:/v:foo {i} true
run --rm -v {p}v:/v -v {p}w:/v {i} true
run --rm -v {p}v:/ {i} true
run --rm --mount type=volume,dst=/m,readonly {i} true
run --rm --mount type=volume,dst=/m,volume-subpath=x {i} true
run --rm --mount type=volume,src={p}v,dst=/m,volume-subpath=../x {i} true
run --rm --mount type=volume,src={p}v,dst=/m,volume-opt=foo=bar {i} true
""".strip().splitlines()

ERRORS = """
run {i}
run {i} nosuch
run {i} /etc
run --name {rname} {i} true
run --user nosuch {i} true
run -w foo {i} true
run --stop-signal FOO {i} true
run --tmpfs x {i} true
run --restart=foo {i} true
run --pull never nosuchimage
run -m 1k {i} true
run -v /a:b {i} true
run -v a:b:c:d {i} true
run --mount type=foo,target=/x {i} true
run --mount type=bind,source=/nonexistent,target=/x {i} true
run --cap-add FOO {i} true
run --network container:nosuch {i} true
run --volumes-from nosuch {i} true
run --ipc=x {i} true
ps -f status=bogus
ps -f bogus=x
logs nosuch
commit nosuch
commit nosuch UPPER
commit {e} 'a b'
commit {e} a@sha256:0000000000000000000000000000000000000000000000000000000000000000
commit -c 'RUN x' {e}
commit -c 'ENV' {e}
commit -c '' {e}
diff nosuch
history nosuch
history --platform linux/arm64 nosuch
container prune -f --filter bogus=1
image prune -f --filter bogus=1
image prune -f --filter dangling=x
image prune -f --filter until=x
image prune -f --filter until=1h --filter until=2h
system prune -f --filter bogus=1
images --filter reference=[
images --filter before=nosuch
inspect nosuch
inspect --type container nosuch
inspect --type image nosuch
inspect --type image {e}
inspect nosuch {e} -f '{{.Id}}'
inspect {e} nosuch -f '{{.Id}}'
inspect -f '{{.Foo}}' {e}
inspect -f '{{.State.Foo}}' {e}
inspect -f '{{index .Args 9}}' {e}
inspect -f '{{join .Foo}}' {e}
container inspect nosuch
image inspect nosuch
exec nosuch ls
exec {e} ls
exec {r} nosuch
exec {r} /etc
exec -w /nope {r} ls
exec -u nosuch {r} ls
stop nosuch {e}
kill {e}
kill -s FOO {r}
kill nosuch
rm {r}
rm nosuch
rm -f nosuch
wait nosuch
wait {e} nosuch
start nosuch
attach {e}
attach nosuch
restart nosuch
rename {e} {rname}
rename nosuch x
tag nosuch foo
rmi nosuch
rmi {i}
images nosuch
load -i /nope
load -i /etc/passwd
import /nope
import /etc/passwd
import -c BOGUS {tar}
import {tar} UPPER
import --platform windows/amd64 {tar}
import --platform a/b/c/d {tar}
import http://127.0.0.1:1/x
load -i {tar}
load --platform linux/s390x -i {tar}
load --platform a/b/c/d -i {tar}
load --platform a,b -i {tar}
save --platform linux/a,linux/b {i}
save nosuch
save -o /nope/x {i}
save -o / {i}
save --platform linux/s390x {i}
save --platform a/b/c/d {i}
export nosuch
export -o /nope/x {e}
export -o / {e}
port {r} 99
port nosuch
diff nosuch
top nosuch
top {e}
history nosuch
pause nosuch
pause {e}
unpause {r}
stats --no-stream nosuch
update --cpu-shares 5 nosuch
update --restart x:y {r}
update --restart bogus {r}
update --restart always:3 {r}
update --memory 1m {r}
update --memory 64m --memory-swap 32m {r}
update --cpuset-cpus 999 {r}
update --cpuset-mems x {r}
update --cpu-period 5 {r}
update --cpu-quota 5 {r}
top {r} -o comm
top {r} --bogus
network create -d nosuch {p}a
network create --ipv4=false {p}a
network create --subnet 10.77.5.1/16 {p}a
network create bridge
network inspect nosuch
network inspect nosuch bridge -f '{{.Name}}'
inspect --type network nosuch
network connect bridge nosuch
network connect nosuch {r}
network connect host {r}
network disconnect nosuch {r}
network disconnect -f bridge nosuch
network rm bridge
network rm nosuch
network ls --filter bogus=x
network ls --filter type=wrong
network ls --filter dangling=maybe
network ls --format '{{.Foo}}'
network prune -f --filter bogus=x
run --network nosuch {i} true
run --network bridge --ip 1.2.3.4 {i} true
run --network host --ip 1.2.3.4 {i} true
""".strip().splitlines()

ANSWERS = """
run --rm {i} echo hello
run --rm {i} sh -c 'echo a; echo b >&2; exit 7'
run --rm -i {i} cat
run --rm -t {i} tty
run --rm -t {i} echo x
run --rm -e A=1 {i} env
run --rm -eHOME=/x -e NOSUCHVARIABLE {i} env
run --rm -h box {i} hostname
run --rm -u 1:1 {i} id
run --rm -w /tmp {i} pwd
run --rm --entrypoint echo {i} x y
run --rm --entrypoint '' {i} echo z
run --rm --tmpfs /q:size=1m {i} mount
run --rm {i} -- true
run --rm --name={p}x --label a=b {i} true
run --rm --network none {i} echo none
run --rm --sig-proxy=false {i} sh -c 'kill -9 $$'
run --rm {i} sh -c 'exit 200'
run --rm -a stdout {i} sh -c 'echo o; echo e >&2'
run --rm -a stderr {i} sh -c 'echo o; echo e >&2'
run --rm --read-only {i} touch /x
run --rm --cap-drop ALL {i} grep CapEff /proc/self/status
run --rm --ulimit nofile=64:128 {i} sh -c 'ulimit -n'
run --rm --shm-size 1m {i} df /dev/shm
run -it --rm {i} true
create --name {p}c {i} true
rm {p}c
ps
ps -a
ps -aq
ps -n 1
ps -l
ps --no-trunc
ps -a -f name={rname} --format json
ps -f name={rname} --format '{{.Names}} {{.Ports}} {{.Label "a"}} {{.Labels}}|{{.State}}|{{.Mounts}}|{{.Networks}}'
ps -f name={rname} --format '{{.Image}}'
ps -f name={rname} --format 'table {{.Names}}\\t{{.Image}}\\t{{.Command}}'
ps -f name={rname} --format '{{upper .Names}} {{lower .State}} {{title .State}} {{json .Names}} {{len .Names}}'
ps -f name={rname} --format '{{range $i, $p := split .Ports ", "}}{{$i}}={{$p}};{{end}}'
ps -f name={rname} --format '{{if eq .State "running"}}up{{else}}down{{end}} {{printf "%-10s|%q" .State .State}}'
ps -f name=nosuch
container ls -a -q
container list -q
logs {e}
logs --tail 1 {e}
logs -n 0 {e}
logs --details {e}
inspect -f '{{.State.Status}} {{.State.ExitCode}}' {e}
inspect -f '{{json .State}}' {e}
inspect -f '{{json .Config}} {{json .HostConfig.Binds}} {{json .NetworkSettings.Networks}}' {e}
inspect -f '{{range .Config.Env}}{{println .}}{{end}}' {e}
inspect -f '{{.Config.Labels}} {{.Mounts}} {{.HostConfig.Memory}} {{.Args}}' {r}
inspect -f '{{index .Config.Labels "a"}} {{len .Args}} {{join .Args ","}} {{printf "%s-%d" .Name .RestartCount}}' {r}
inspect -f '{{with .State}}{{.Running}}{{end}}{{if .State.Running}}up{{else}}down{{end}}' {r}
inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}' {r}
inspect -f '{{.State.Health}} {{.HostConfig.PidsLimit}}' {r}
inspect -f '{{range $k, $v := .NetworkSettings.Ports}}{{$k}}={{(index $v 0).HostPort}} {{end}}' {r}
inspect -f '{{.ID}}|{{.Name}}|{{ .Config.Image }}' {r}
inspect -f '{{- .Name -}} {{/* nothing */}}' {r}
inspect -f '{{.Config.Labels.nosuch}}' {r}
inspect -f '{{not .State.Running}} {{and 1 0}} {{or 0 "x"}} {{gt 2 1}} {{ne "a" "b"}}' {r}
inspect -f json {e}
inspect {e}
inspect {i}
inspect --type image {i}
image inspect -f '{{.RepoTags}} {{.Os}}/{{.Architecture}} {{.RootFS.Type}} {{.Config.Cmd}}' {i}
inspect --type image -f '{{.Id}}' {i}
exec {r} sh -c 'exit 9'
exec {r} echo hi
exec -i {r} cat
exec -t {r} echo x
exec -d {r} true
exec -e FOO=1 {r} env
exec -w /tmp {r} pwd
exec -u 1 {r} id
exec {r} sh -c 'echo o; echo e >&2'
exec -it {r} ls
start -a {e}
wait {e}
stop {e}
images {i}
images -q {i}
images --digests {i}
images --no-trunc {i}
images --format '{{.ID}} {{.Repository}}:{{.Tag}} {{.Size}} {{.Containers}} {{.SharedSize}}' {i}
images --format '{{.VirtualSize}} {{.Digest}}' {i}
images --format 'table {{.Repository}}\\t{{.Tag}}' {i}
images --format json {i}
images -a --filter dangling=false {i}
history {i}
history -q {i}
history --no-trunc {i}
history -H=false {i}
history --format json {i}
history --format '{{.ID}} {{.CreatedBy}} {{.Size}} {{.Comment}}' {i}
history --format 'table {{.CreatedAt}}\\t{{.CreatedSince}}' {i}
diff {e}
diff {r}
container prune -f --filter label=parity=none
image prune -f --filter label=parity=none
image prune -a -f --filter label=parity=none --filter until=24h
system prune -f --filter label=parity=none
system prune -f --volumes --filter until=24h
tag {i} {p}t:1
rmi {p}t:1
import -m msg {tar} {p}i:1
rmi -f {p}i:1
port {r}
port {r} 80
port {r} 81/udp
create --name {p}c {i} true
rename {p}c {p}d
rm -v {p}d
stats --no-stream --format '{{.Name}}' {r}
stats --no-stream {e}
stats --no-stream --format '{{.Name}}'
update --cpu-shares 5 {r} {e} nosuch
update --memory-swap -1 {r}
update --restart on-failure:2 {e}
inspect -f '{{.HostConfig.CpuShares}} {{.HostConfig.RestartPolicy.Name}}' {e}
top {r} -o pid,comm
top {r} aux
start {r}
kill -s URG {r}
info --format '{{.ServerVersion}} {{.Driver}} {{.OSType}}'
version --format '{{.Server.Version}} {{.Server.APIVersion}}'
network create --label a=b --label c --internal {p}net
network connect --alias x {p}net {e}
network connect --alias x {p}net {r}
network ls --filter name={p}net
network ls --filter name={p}net -q --no-trunc
network ls -f name={p}net --format '{{.Name}} {{.Label "a"}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.Driver}}'
network ls --filter name={p}net --format raw
network inspect {p}net -f '{{.Name}} {{.Labels}} {{json .Options}} {{.Internal}} {{len .Containers}}'
network disconnect {p}net {e}
network disconnect -f {p}net {r}
network prune
network rm {p}net
network rm -f {p}net
volume create --label a=b {p}v
volume create {p}v
volume ls -f name={p}
volume ls -q -f name={p}
volume ls -f name={p} --format json
volume ls -f name={p} --format 'table {{.Name}}\\t{{.Labels}}\\t{{.Scope}}\\t{{.Links}}\\t{{.Size}}\\t{{.Status}}'
volume ls -f name={p} --format '{{.Name}} {{.Label "a"}} {{.Availability}} {{.Group}} {{.Mountpoint}}'
volume list -q -f label=a=b -f name={p}
volume inspect -f '{{.Name}} {{.Driver}} {{.Labels}} {{.Options}} {{.Scope}}' {p}v
volume inspect {p}v
inspect --type volume -f '{{.Name}}' {p}v
run --rm -v {p}v:/v {i} sh -c 'echo kept >/v/file'
run --rm -v {p}v:/v:ro {i} cat /v/file
run --rm --mount type=volume,src={p}v,dst=/v,ro {i} cat /v/file
volume prune -f --filter label=nosuch
volume rm -f nosuch
volume rm {p}v
""".strip().splitlines()

FIRST_LINE_ONLY = frozenset(
    ("run -it --rm {i} true", "exec -it {r} ls", "-H a -H b ps", "network rm bridge", "network rm nosuch")
)
