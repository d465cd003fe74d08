/* One policy and some inputs of it: case.c is written for each file that is measured. */
#ifndef CASE_H
#define CASE_H

extern const int case_count;
int case_act(int which);

#endif
