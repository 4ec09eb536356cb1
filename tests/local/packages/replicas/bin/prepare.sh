#!/bin/sh
cat "$1" > prepared.txt
cat "$2" >> prepared.txt
echo "$3" > Prepare.txt
echo prepared
