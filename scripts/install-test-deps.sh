#!/usr/bin/env bash
# Installs the mail programs that the tests talk to. Does nothing, quickly, when
# all are there. On systems other than Debian and Ubuntu it says what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
interop=internal/lab/interop/testdata

# What shows that it is there, and the Debian package that brings it. The race
# detector is why a C compiler is among them.
needs='
/usr/bin/gcc                                          gcc
/usr/include/stdlib.h                                 libc6-dev
/usr/bin/swaks                                        swaks
/usr/lib/*/perl5/*/Net/SSLeay.pm                      libnet-ssleay-perl
/usr/bin/msmtp                                        msmtp
/usr/bin/curl                                         curl
/usr/sbin/postfix                                     postfix
/usr/sbin/smtp-source                                 postfix
/usr/lib/*/sasl2/libplain.so                          libsasl2-modules
/usr/lib/*/sasl2/libscram.so                          libsasl2-modules
/usr/lib/*/sasl2/libsasldb.so                         libsasl2-modules-db
/usr/sbin/saslpasswd2                                 sasl2-bin
/usr/bin/php                                          php-cli
/usr/share/php/libphp-phpmailer/src/PHPMailer.php     libphp-phpmailer
/usr/bin/python3                                      python3
/usr/bin/strace                                       strace
/usr/sbin/mkfs.ext4                                   e2fsprogs
/usr/bin/mount                                        mount
/usr/lib/postgresql/*/bin/postgres                    postgresql
/usr/sbin/pgbouncer                                   pgbouncer
/usr/lib/python3/dist-packages/aiosmtpd/__init__.py   python3-aiosmtpd
/usr/lib/python3/dist-packages/dkim/__init__.py       python3-dkim
/usr/lib/python3/dist-packages/nacl/__init__.py       python3-nacl
/usr/sbin/opendkim                                    opendkim
'

there() { compgen -G "$1" >/dev/null; }

missing=()
while read -r file package; do
	[ -z "$file" ] || there "$file" || missing+=("$package")
done <<<"$needs"
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
# Ubuntu has no package of a browser; without one the tests of pages are skipped
# there, and there alone.
if ! grep -qs '^ID=ubuntu$' /etc/os-release &&
	! command -v chromium chromium-browser google-chrome >/dev/null; then
	missing+=(chromium)
fi

if [ ${#missing[@]} -gt 0 ]; then
	mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
	if ! command -v apt-get >/dev/null; then
		{
			echo "The tests need programs that are not installed, and only Debian's and"
			echo "Ubuntu's apt-get is known here. Install what these Debian packages hold:"
			printf '  %s\n' "${missing[@]}"
			echo "so that these files and commands exist:"
			awk 'NF { print "  " $1 }' <<<"$needs"
			echo "  node, npm and chromium on the PATH"
		} >&2
		exit 1
	fi
	as_root=()
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || {
			echo "The tests need packages; as root, run: apt-get install ${missing[*]}" >&2
			exit 1
		}
		as_root=(sudo)
	fi
	echo "installing ${missing[*]}"
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	# Postfix is only ever run from folders of the tests' own. "No configuration"
	# leaves the system without a main.cf, so that no mail service starts.
	apt() {
		"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l \
			apt-get -qq -o Dpkg::Use-Pty=0 "$@" >>"$log" 2>&1 </dev/null
	}
	# PostgreSQL too: no cluster of the system's is made.
	clusters=/etc/postgresql-common/createcluster.d/postrider-tests.conf
	"${as_root[@]}" mkdir -p "${clusters%/*}"
	echo 'create_main_cluster = false' | "${as_root[@]}" tee "$clusters" >/dev/null
	trap 'rm -f "$log"; "${as_root[@]}" rm -f "$clusters"' EXIT
	{
		apt update &&
		apt install --no-install-recommends debconf &&
		echo 'postfix postfix/main_mailer_type select No configuration' |
			"${as_root[@]}" debconf-set-selections &&
		apt install --no-install-recommends "${missing[@]}"
	} || {
		cat "$log" >&2
		echo "apt-get failed; the tests need: ${missing[*]}" >&2
		exit 1
	}
fi

# Nodemailer, as package-lock.json pins it, beside the script that uses it.
if ! cmp -s "$interop/package-lock.json" "$interop/node_modules/.postrider-lock"; then
	echo "installing nodemailer"
	npm ci --prefix "$interop" --loglevel=error --no-audit --no-fund --ignore-scripts </dev/null >/dev/null
	cp "$interop/package-lock.json" "$interop/node_modules/.postrider-lock"
fi
