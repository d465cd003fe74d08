"""How a matrix lies in a C file: one file a layout, and the choice by bytes and instructions."""
