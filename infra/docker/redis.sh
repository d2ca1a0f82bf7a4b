#!/bin/sh
# Starts Redis with its password in a file that only it can read: a command line shows to everyone.
set -eu
umask 077
cat > /tmp/redis.conf <<CONF
requirepass $REDIS_PASSWORD
dir /data
appendonly yes
maxmemory ${REDIS_MAXMEMORY:-400mb}
maxmemory-policy noeviction
CONF
unset REDIS_PASSWORD
exec redis-server /tmp/redis.conf
